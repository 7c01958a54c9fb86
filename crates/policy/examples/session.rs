//! One episode with a policy, without a robot: opens a checkpoint, lets it choose the task, and prints actions.
//!
//! ```text
//! cargo run --release -p skillweld-policy --example session -- MERGED [INSTRUCTION]
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::env;

use ndarray::Array3;
use skillweld_policy::{Observation, Policy, PolicyError};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let checkpoint =
        arguments.next().ok_or("which checkpoint? give the folder that `skillweld merge` wrote")?;
    let instruction = arguments.next().unwrap_or_else(|| "open the drawer".to_owned());

    let policy = Policy::open(&checkpoint)?;
    let shape = policy.shape();
    println!("tasks: {}", policy.tasks().join(", "));
    println!(
        "{} images, {} values of state, {} actions a chunk",
        shape.images, shape.proprio_dim, shape.chunk_len
    );

    let mut session = policy.session()?;
    for moment in 0..3 {
        let step = session.step(&look(&policy, moment, &instruction))?;
        let task = &policy.tasks()[step.task];
        println!(
            "{task} ({}), {:.0} ms: first action {:.3}",
            step.reason.name(),
            step.latency.total_ms,
            step.actions.row(0)
        );
    }
    if let Some(decision) = session.decision() {
        for candidate in &decision.candidates {
            println!("{}: {:.1} %", policy.tasks()[candidate.task], 100.0 * candidate.probability);
        }
    }

    // The next episode, of a task that is known.
    session.reset();
    session.request(Some(policy.tasks().len() - 1));
    let step = session.step(&look(&policy, 0, &instruction))?;
    println!("{} ({})", policy.tasks()[step.task], step.reason.name());

    // What cannot be used is named, and the session takes the next observation.
    let blind = Observation::new(&[], &vec![0.0; shape.proprio_dim], instruction);
    match session.step(&blind) {
        Err(PolicyError::Observation(problem)) => println!("refused: {problem}"),
        Err(other) => return Err(other.into()),
        Ok(_) => return Err("actions without images".into()),
    }
    Ok(())
}

/// What a robot's cameras and joints would say.
fn look(policy: &Policy, moment: usize, instruction: &str) -> Observation {
    let shape = policy.shape();
    let camera = |index: usize| {
        Array3::from_shape_fn((240, 320, 3), |(y, x, c)| {
            ((x + 2 * y + 50 * c + 90 * index + 10 * moment) % 256) as u8
        })
    };
    let images: Vec<_> = (0..shape.images).map(camera).collect();
    let views: Vec<_> = images.iter().map(|image| image.view()).collect();
    let state: Vec<f64> =
        (0..shape.proprio_dim).map(|joint| 0.05 * ((joint + moment) as f64).sin()).collect();
    Observation::new(&views, &state, instruction)
}
