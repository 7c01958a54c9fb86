//! How fast it is: `cargo test --release -p skillweld-robot-sim --test speed -- --ignored --nocapture`.

use std::time::Instant;

use skillweld_robot_sim::{ArmModel, JOINTS, Random, Renderer, Scene, World, cubes_and_tray};

/// Runs control steps of 1/30 s under random goals; steps a second by a clock.
fn rate(world: &mut World, count: usize, seconds: impl Fn() -> f64, mut each: impl FnMut(&World)) -> f64 {
    let mut random = Random::new(1);
    let start = seconds();
    for step in 0..count {
        if step % 10 == 0 {
            let joints = world.arm().joints;
            let goals: [f64; JOINTS] =
                std::array::from_fn(|j| random.uniform(joints[j].min_rad, joints[j].max_rad));
            world.set_goals(&goals);
        }
        world.advance(8);
        each(world);
    }
    count as f64 / (seconds() - start)
}

/// Time that this thread has had a core, in seconds: other programs do not count. Linux only.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let first = stat.split(' ').next().expect("time on the CPU in nanoseconds");
    first.parse::<f64>().expect("a number") * 1e-9
}

#[test]
#[ignore = "a measurement: run it alone, in release"]
fn control_steps_a_second() {
    for (what, size, samples, least) in [
        ("without cameras", None, 1, 1000.0),
        ("with two 96 × 96 cameras", Some((96, 96)), 1, 200.0),
        ("with two 96 × 96 cameras, 2 × 2 samples", Some((96, 96)), 2, 100.0),
        ("with two 640 × 480 cameras, on the wall clock", Some((640, 480)), 1, 5.0),
    ] {
        let (width, height) = size.unwrap_or((96, 96));
        let mut scene = Scene::tabletop(width, height);
        scene.samples = samples;
        let mut world = World::new(ArmModel::so101(), scene, cubes_and_tray(1)).unwrap();
        let mut renderer = Renderer::new();
        let count = if size == Some((640, 480)) { 100 } else { 1000 };
        let wall = Instant::now();
        // Threads help with large pictures: there only the clock on the wall tells.
        let seconds = || if size == Some((640, 480)) { wall.elapsed().as_secs_f64() } else { cpu_s() };
        let found = rate(&mut world, count, seconds, |world| {
            if size.is_some() {
                std::hint::black_box(renderer.render(world).unwrap());
            }
        });
        println!("{found:.0} control steps of 1/30 s a second {what}");
        assert!(found > least, "{what}: {found} steps a second, {least} wanted");
    }
}
