//! An arm of fake servos, calibrated, and a driver's way to it.
#![allow(dead_code, reason = "each test uses some of it")]

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use skillweld_fake_servo_bus::{Loopback, Servos};
use skillweld_robot::BodyUnit;
use skillweld_robot_so101::calibration::{Calibration, MotorCalibration};
use skillweld_robot_so101::protocol::{BAUD, Bus, BusError, Retries, Transport};
use skillweld_robot_so101::{ArmOptions, FollowerOptions, JOINTS, Opener};

pub(crate) const IDS: [u8; 6] = [1, 2, 3, 4, 5, 6];

/// Homing offset, least and largest position of each joint.
const RANGES: [(i32, i32, i32); 6] = [
    (-709, 743, 3335),
    (1104, 825, 3217),
    (-1220, 884, 3098),
    (-2047, 877, 3198),
    (2047, 0, 4095),
    (0, 2020, 3522),
];

pub(crate) fn calibration() -> Calibration {
    let motor = |i: usize| {
        let (homing_offset, range_min, range_max) = RANGES[i];
        MotorCalibration { id: JOINTS[i].id, drive_mode: 0, homing_offset, range_min, range_max }
    };
    Calibration { motors: std::array::from_fn(motor) }
}

/// Servos that are calibrated so, each joint at this place of its range, 0 … 1.
pub(crate) fn servos_at(place: f64) -> Servos {
    let servos = Servos::new(&IDS);
    for motor in calibration().motors {
        servos.calibrate(motor.id, motor.homing_offset, motor.range_min as u16, motor.range_max as u16);
        let ticks = motor.range_min + (place * f64::from(motor.range_max - motor.range_min)).round() as i32;
        servos.turn(motor.id, f64::from(ticks + motor.homing_offset));
    }
    servos
}

pub(crate) fn servos() -> Servos {
    servos_at(0.5)
}

pub(crate) fn arm_options(port: &str) -> ArmOptions {
    ArmOptions { port: port.into(), id: "arm".into(), calibration: calibration(), body: BodyUnit::Degrees }
}

pub(crate) fn options(port: &str) -> FollowerOptions {
    FollowerOptions { arm: arm_options(port), max_velocity_deg_s: 180.0, guardian: None }
}

/// Virtual time that a read waits, whatever this machine is busy with.
const PATIENCE: Duration = Duration::from_millis(15);

struct Line(Loopback);

impl Transport for Line {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn receive(&mut self, into: &mut Vec<u8>, _: Instant) -> io::Result<bool> {
        let mut buffer = [0; 256];
        self.0.set_timeout(PATIENCE);
        match self.0.read(&mut buffer) {
            Ok(length) => {
                into.extend_from_slice(&buffer[..length]);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn discard(&mut self) -> io::Result<()> {
        self.0.clear_input();
        Ok(())
    }

    fn set_baud(&mut self, baud: u32) -> io::Result<()> {
        self.0.set_baud(baud);
        Ok(())
    }
}

/// A bus in memory.
pub(crate) fn bus(servos: &Servos) -> Bus {
    Bus::over(Box::new(Line(Loopback::open(servos).expect("the cable is in"))), "memory", BAUD)
}

/// Opens a real port for a bus that waits longer: a machine that is busy may not let the fake servos run for a while.
pub(crate) fn patient_opener(port: &str) -> Opener {
    let port = port.to_owned();
    Box::new(move || {
        let mut bus = Bus::open(&port, BAUD)?;
        bus.set_retries(Retries { patience: Duration::from_millis(500), ..Retries::STEADY });
        Ok(bus)
    })
}

/// Opens the bus in memory, while its cable is in.
pub(crate) fn opener(servos: &Servos) -> Opener {
    let servos = servos.clone();
    Box::new(move || match Loopback::open(&servos) {
        Ok(line) => Ok(Bus::over(Box::new(Line(line)), "memory", BAUD)),
        Err(error) => Err(BusError::Open { port: "memory".into(), reason: error.to_string() }),
    })
}

pub(crate) fn torque(servos: &Servos) -> Vec<bool> {
    IDS.iter().map(|&id| servos.torque_enabled(id)).collect()
}

pub(crate) fn goals(servos: &Servos) -> Vec<i32> {
    IDS.iter().map(|&id| servos.goal(id)).collect()
}

pub(crate) fn positions(servos: &Servos) -> Vec<i32> {
    IDS.iter().map(|&id| servos.position(id)).collect()
}

/// A small generator of numbers, the same on every machine.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// 0 … 1
    pub(crate) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Waits for something that another process does.
pub(crate) fn eventually(what: &str, mut happens: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !happens() {
        assert!(Instant::now() < end, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}
