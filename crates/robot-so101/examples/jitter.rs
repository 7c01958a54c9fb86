//! Drives a fake arm at 30 Hz beside a thread that never rests, and says how late the loop's steps begin and how long the bus
//! takes.
//!
//! `cargo run --release -p skillweld-robot-so101 --example jitter -- 600` runs for 600 s, ten minutes. The arm is the real
//! driver on a pseudo terminal behind which fake servos answer with the timing of 1 Mbaud.
#![allow(clippy::print_stdout, reason = "an example that people run to read what it prints")]

use std::array;
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use skillweld_fake_servo_bus::{ServoBus, Servos};
use skillweld_robot::{BodyUnit, DriveOptions, Replay, StopSwitch, drive};
use skillweld_robot_so101::calibration::{Calibration, MotorCalibration};
use skillweld_robot_so101::{ArmOptions, FollowerOptions, JOINTS, So101Follower};

const FPS: u64 = 30;
/// Range of every joint of the fake arm.
const MIN: u16 = 1024;
const MAX: u16 = 3072;

fn main() -> Result<(), Box<dyn Error>> {
    let seconds: u64 = std::env::args().nth(1).map_or(Ok(600), |text| text.parse())?;
    let steps = seconds.checked_mul(FPS).ok_or("too many seconds")?;

    let servos = Servos::new(&JOINTS.map(|joint| joint.id));
    let motor = |i: usize| MotorCalibration {
        id: JOINTS[i].id,
        drive_mode: 0,
        homing_offset: 0,
        range_min: MIN.into(),
        range_max: MAX.into(),
    };
    let calibration = Calibration { motors: array::from_fn(motor) };
    for motor in &calibration.motors {
        servos.calibrate(motor.id, 0, MIN, MAX);
        servos.turn(motor.id, f64::from(MIN + MAX) / 2.0);
    }
    let bus = ServoBus::start(&servos)?;
    let mut arm = So101Follower::new(FollowerOptions {
        arm: ArmOptions {
            port: bus.path().display().to_string(),
            id: "jitter".into(),
            calibration,
            body: BodyUnit::Degrees,
        },
        max_velocity_deg_s: 180.0,
        guardian: None,
    })?;
    // Every joint swings by 20 (degrees, or percent of the gripper's way) around its middle, once in four seconds.
    let swing = |step: u64| 20.0 * (step as f64 / FPS as f64 * std::f64::consts::FRAC_PI_2).sin();
    let action =
        |step| vec![swing(step), swing(step), swing(step), swing(step), swing(step), 50.0 + swing(step)];
    let mut source = Replay::new((0..steps).map(action).collect(), None, None);

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
    println!("woken by: {}", summary.scheduling);
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
