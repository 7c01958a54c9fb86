//! How fast it is: `cargo test --release -p skillweld-suites --test speed -- --ignored --nocapture`.

use skillweld_suites::{Env, EnvOptions, Expert, Suite};

/// Time that this thread has had a core, in seconds: other programs do not count. Linux only.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let first = stat.split(' ').next().expect("time on the CPU in nanoseconds");
    first.parse::<f64>().expect("a number") * 1e-9
}

#[test]
#[ignore = "a measurement: run it alone, in release"]
fn control_steps_a_second() {
    for suite in Suite::ALL {
        for (what, cameras, least) in
            [("without cameras", false, 1000.0), ("with two 96 × 96 cameras", true, 200.0)]
        {
            let (mut steps, start) = (0, cpu_s());
            for index in 0..4 {
                for task in suite.tasks() {
                    let mut env = Env::new(task, &EnvOptions { index, ..EnvOptions::default() }).unwrap();
                    let mut expert = Expert::new(&env);
                    while !env.status().success && env.status().steps < task.step_limit {
                        if cameras {
                            std::hint::black_box(env.observe().unwrap());
                        }
                        env.step(&expert.act(&env)).unwrap();
                        steps += 1;
                    }
                }
            }
            let rate = f64::from(steps) / (cpu_s() - start);
            println!("{:8} {rate:.0} control steps of 1/20 s a second {what}", suite.name());
            assert!(rate > least, "{what}: {rate} steps a second, {least} wanted");
        }
    }
}
