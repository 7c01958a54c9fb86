//! How long an observation takes. Alone in its binary: other tests would run beside it.

mod support;

use std::time::{Duration, Instant};

use skillweld_fake_servo_bus::{ServoBus, address};
use skillweld_robot_so101::registers::PRESENT_POSITION;
use support::*;

#[test]
fn six_positions_take_a_millisecond_more_than_their_bytes() {
    let servos = servos();
    for id in IDS {
        servos.set(id, address::RETURN_DELAY, &[0]);
    }
    let line = ServoBus::start(&servos).unwrap();
    let mut bus = patient_opener(line.path().to_str().unwrap())().unwrap();
    // 14 bytes of request, 6 × 8 of replies, ten bits each.
    let wire = bus.wire_time(14 + 6 * 8);
    assert_eq!(wire, Duration::from_micros(620));
    let mut times: Vec<Duration> = (0..500)
        .map(|_| {
            let start = Instant::now();
            let positions = bus.sync_read(&PRESENT_POSITION, &IDS).unwrap();
            assert_eq!(positions, support::positions(&servos));
            start.elapsed()
        })
        .collect();
    times.sort();
    let (least, median) = (times[0], times[250]);
    println!("{wire:?} on the wire; least {least:?}, median {median:?}");
    assert!(least >= wire, "the fake is faster than the wire: {least:?}");
    assert!(median <= wire + Duration::from_millis(1), "{median:?}");
}
