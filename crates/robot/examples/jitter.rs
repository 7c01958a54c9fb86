//! Runs the control loop at 30 Hz beside a thread that never rests, and says how late its steps begin.
//!
//! `cargo run --release -p skillweld-robot --example jitter -- 600` runs for 600 s, ten minutes.
#![allow(clippy::print_stdout, reason = "an example that people run to read what it prints")]

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use skillweld_robot::{
    Description, DriveOptions, Joint, Observation, Replay, Robot, RobotError, StopSwitch, Unit, drive,
};

/// An arm that takes as long as a serial bus does: 2 ms to read, 1 ms to write.
struct Bus(Description);

impl Robot for Bus {
    fn describe(&self) -> &Description {
        &self.0
    }

    fn connect(&mut self) -> Result<(), RobotError> {
        Ok(())
    }

    fn observe(&mut self) -> Result<Observation, RobotError> {
        thread::sleep(Duration::from_millis(2));
        Ok(Observation {
            captured: Instant::now(),
            positions: vec![0.0; self.0.joints.len()],
            frames: Vec::new(),
        })
    }

    fn act(&mut self, _positions: &[f64]) -> Result<(), RobotError> {
        thread::sleep(Duration::from_millis(1));
        Ok(())
    }

    fn stop(&mut self) -> Result<(), RobotError> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let seconds: u64 = std::env::args().nth(1).map_or(Ok(600), |text| text.parse())?;
    let joints = (1..=6).map(|number| Joint {
        name: format!("joint_{number}"),
        unit: Unit::Degrees,
        min: -90.0,
        max: 90.0,
        max_velocity: 180.0,
    });
    let mut arm = Bus(Description { kind: "bus".to_owned(), joints: joints.collect(), cameras: Vec::new() });
    let mut source = Replay::new(
        vec![vec![0.0; 6]; usize::try_from(seconds.checked_mul(30).ok_or("too many seconds")?)?],
        None,
        None,
    );

    let rest = Arc::new(AtomicBool::new(false));
    let busy = {
        let rest = Arc::clone(&rest);
        thread::spawn(move || {
            let mut number = 1_u64;
            while !rest.load(Ordering::Relaxed) {
                number = black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            }
        })
    };
    let summary = drive(&mut arm, &mut source, &DriveOptions::default(), &mut (), &StopSwitch::new())?;
    rest.store(true, Ordering::Relaxed);
    busy.join().map_err(|_| "the busy thread has panicked")?;

    let late = &summary.lateness;
    let us = |share: f64| late.percentile(share).as_micros();
    println!(
        "{} steps, {} left out, {} overruns, {:?}",
        summary.steps, summary.skipped, summary.overruns, summary.end
    );
    println!("within 2 ms of the deadline: {:.3} %", 100.0 * late.share_within(Duration::from_millis(2)));
    println!(
        "late by: p50 {} us, p99 {} us, p99.9 {} us, max {} us",
        us(0.5),
        us(0.99),
        us(0.999),
        late.max().as_micros()
    );
    let (section, took) = summary.sections.worst();
    println!("worst section: {section}, {} us", took.as_micros());
    Ok(())
}
