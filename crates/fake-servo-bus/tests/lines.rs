//! The two ways to the servos, byte by byte, and a plant of one's own.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use skillweld_fake_servo_bus::{Drive, Fault, Loopback, Plant, ServoBus, Servos, Shaft, address};

const PING_1: [u8; 6] = [0xFF, 0xFF, 1, 2, 1, 0xFB];
const PONG_1: [u8; 6] = [0xFF, 0xFF, 1, 2, 0, 0xFC];

#[test]
fn virtual_time_passes_as_bytes_do() {
    let servos = Servos::new(&[1]);
    let mut line = Loopback::open(&servos).unwrap();
    line.write_all(&PING_1).unwrap();
    let mut reply = [0; 6];
    line.read_exact(&mut reply).unwrap();
    assert_eq!(reply, PONG_1);
    // Six bytes there, 250 × 2 µs of delay, six bytes back.
    assert_eq!(servos.now(), Duration::from_micros(60 + 500 + 60));
    line.set_timeout(Duration::from_millis(3));
    assert_eq!(line.read(&mut reply).unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(servos.now(), Duration::from_micros(620 + 3000));
}

#[test]
fn a_pulled_cable_is_an_error_until_it_is_back() {
    let servos = Servos::new(&[1]);
    let mut line = Loopback::open(&servos).unwrap();
    servos.inject(1, Fault::Unplug);
    line.write_all(&PING_1).unwrap();
    assert_eq!(line.read(&mut [0; 6]).unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(line.write(&PING_1).unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(Loopback::open(&servos).err().unwrap().kind(), ErrorKind::NotFound);
    servos.replug();
    Loopback::open(&servos).unwrap().write_all(&PING_1).unwrap();
}

fn open(bus: &ServoBus) -> File {
    OpenOptions::new().read(true).write(true).open(bus.path()).expect("it is a port")
}

#[test]
fn any_program_opens_the_path() {
    let servos = Servos::new(&[1]);
    let bus = ServoBus::start(&servos).unwrap();
    let mut port = open(&bus);
    let start = Instant::now();
    port.write_all(&PING_1).unwrap();
    let mut reply = [0; 6];
    port.read_exact(&mut reply).unwrap();
    assert_eq!(reply, PONG_1);
    assert!(start.elapsed() >= Duration::from_micros(620), "{:?}", start.elapsed());
    servos.unplug();
    // A terminal that has hung up ends, or fails.
    assert!(!matches!(port.read(&mut reply), Ok(1..)));
    servos.replug();
    while !bus.path().exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut port = open(&bus);
    port.write_all(&PING_1).unwrap();
    port.read_exact(&mut reply).unwrap();
    assert_eq!(reply, PONG_1);
    let path = bus.path().to_owned();
    drop(bus);
    assert!(!path.exists());
}

/// A wall that the shaft does not pass.
struct Wall;

impl Plant for Wall {
    fn step(&mut self, dt_s: f64, drives: &[Drive], shafts: &mut [Shaft]) {
        for (drive, shaft) in drives.iter().zip(shafts) {
            let free = shaft.position_ticks + drive.max_velocity_ticks_s * dt_s;
            let goal = if drive.torque { drive.goal_ticks } else { shaft.position_ticks };
            shaft.position_ticks = free.min(goal).min(2100.0);
            shaft.load = if goal > 2100.0 { drive.torque_limit } else { 0.0 };
        }
    }
}

#[test]
fn a_plant_of_ones_own_moves_the_shafts() {
    let servos = Servos::with_plant(&[1], Box::new(Wall));
    servos.set(1, address::GOAL_POSITION, &3000_u16.to_le_bytes());
    servos.set(1, address::TORQUE_LIMIT, &600_u16.to_le_bytes());
    servos.advance(Duration::from_secs(1));
    assert_eq!(servos.position(1), 2048);
    servos.set(1, address::TORQUE_ENABLE, &[1]);
    servos.advance(Duration::from_secs(1));
    assert_eq!((servos.position(1), servos.word(1, address::PRESENT_LOAD)), (2100, 600));
}
