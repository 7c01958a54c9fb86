//! Scripted experts solve their tasks, on every arm.
//!
//! All of it: `cargo test --release -p skillweld-suites --test experts -- --ignored --nocapture`.

use skillweld_suites::{Embodiment, Env, EnvOptions, Expert, Split, Suite, Task};

/// Steps of an episode until success; none for a failure.
fn steps(task: &'static Task, options: &EnvOptions, noise: f64) -> Option<u32> {
    let mut env = Env::new(task, options).expect("a layout");
    assert!(!env.status().success);
    let mut expert = Expert::noisy(&env, noise, u64::from(options.index));
    while env.status().steps < task.step_limit {
        let status = env.step(&expert.act(&env)).expect("finite numbers");
        if status.success {
            return Some(status.steps);
        }
    }
    None
}

/// Prints and gives the number of failures of a task on the first layouts of a split.
#[allow(clippy::print_stdout, reason = "the figures are what the long test is run for")]
fn failures(task: &'static Task, split: Split, count: u32, embodiment: Embodiment, noise: f64) -> usize {
    let mut taken = Vec::new();
    let mut failed = Vec::new();
    for index in 0..count {
        let options = EnvOptions { split, index, embodiment, ..EnvOptions::default() };
        match steps(task, &options, noise) {
            Some(steps) => taken.push(steps),
            None => failed.push(index),
        }
    }
    taken.sort_unstable();
    let median = taken.get(taken.len() / 2).copied().unwrap_or(0);
    let longest = taken.last().copied().unwrap_or(0);
    println!(
        "{:20} {:9} noise {noise:.1}: {:3} of {count}, {median} steps in the median, {longest} at most; failed {failed:?}",
        task.id,
        embodiment.name(),
        taken.len(),
    );
    failed.len()
}

/// The short form of the long test below: ten layouts of each task, of which none may fail.
#[test]
fn experts_solve_ten_layouts_of_every_task() {
    for task in Suite::ALL.iter().flat_map(|suite| suite.tasks()) {
        assert!(failures(task, Split::Training, 10, Embodiment::So101, 0.0) == 0, "{}", task.id);
    }
}

#[test]
fn experts_solve_tasks_with_other_arms_and_with_noise() {
    for suite in Suite::ALL {
        for (embodiment, noise) in
            [(Embodiment::Long, 0.0), (Embodiment::Parallel, 0.0), (Embodiment::So101, 0.2)]
        {
            let failed: usize =
                suite.tasks().iter().map(|task| failures(task, Split::Training, 4, embodiment, noise)).sum();
            assert!(failed <= 1, "{}: {failed} of 20", suite.name());
        }
    }
}

/// What somebody else has done is not done again.
#[test]
fn an_expert_goes_on_where_another_stops() {
    for task in ["goal_stack", "goal_open", "object_can"].map(|id| Task::named(id).expect("a task")) {
        let mut env = Env::new(task, &EnvOptions::default()).expect("a layout");
        let mut first = Expert::new(&env);
        while env.world().held().is_none() {
            env.step(&first.act(&env)).expect("finite numbers");
        }
        let mut second = Expert::new(&env);
        let mut holds = true;
        while !env.status().success {
            let action = second.act(&env);
            // Once: it holds on until it lets go for good.
            assert!(holds || action[6] < 0.0, "{}", task.id);
            holds = action[6] > 0.0;
            env.step(&action).expect("finite numbers");
            assert!(env.status().steps < task.step_limit, "{}", task.id);
        }
        assert!(!holds);
        // Nothing is left to do.
        assert_eq!(Expert::new(&env).act(&env)[..6], [0.0; 6], "{}", task.id);
    }
}

#[test]
#[ignore = "thousands of episodes: in release"]
fn experts_solve_98_of_100_layouts_of_every_task() {
    for (embodiment, noise) in [
        (Embodiment::So101, 0.0),
        (Embodiment::So101, 0.2),
        (Embodiment::Long, 0.0),
        (Embodiment::Parallel, 0.0),
    ] {
        let (mut worst, mut which) = (0, "");
        for task in Suite::ALL.iter().flat_map(|suite| suite.tasks()) {
            let failed = failures(task, Split::Training, 100, embodiment, noise);
            if failed > worst {
                (worst, which) = (failed, task.id);
            }
        }
        assert!(worst <= 2, "{which}: {worst} of 100 fail with {} and noise {noise}", embodiment.name());
    }
}
