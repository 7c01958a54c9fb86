//! A line that says anything: the bus neither panics nor waits for ever, and tells damage from silence.

use std::io;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use skillweld_robot_so101::protocol::{BAUD, Bus, BusError, Retries, Transport};
use skillweld_robot_so101::registers::{GOAL_POSITION, PRESENT_POSITION};
use skillweld_robot_so101::torque_off;

/// Says these pieces one after the other, over and over or once; nothing when it has none.
struct Noise {
    pieces: Vec<Vec<u8>>,
    endless: bool,
    next: usize,
}

impl Transport for Noise {
    fn send(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn receive(&mut self, into: &mut Vec<u8>, _: Instant) -> io::Result<bool> {
        let index = if self.endless { self.next % self.pieces.len() } else { self.next };
        self.next += 1;
        into.extend(self.pieces.get(index).into_iter().flatten());
        Ok(self.endless || index < self.pieces.len())
    }

    fn discard(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn set_baud(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }
}

fn bus(pieces: Vec<Vec<u8>>, endless: bool) -> Bus {
    let mut bus = Bus::over(Box::new(Noise { pieces, endless, next: 0 }), "noise", BAUD);
    bus.set_retries(Retries { attempts: 2, patience: Duration::ZERO });
    bus
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn nothing_panics(
        pieces in proptest::collection::vec(
            proptest::collection::vec(prop_oneof![Just(0xFF_u8), 0..8_u8, any::<u8>()], 1..60),
            1..20,
        ),
        endless: bool,
    ) {
        let mut bus = bus(pieces, endless);
        let _ = bus.ping(1);
        let _ = bus.read(2, &PRESENT_POSITION);
        let _ = bus.read_block(3, 40, 31);
        let _ = bus.write_verified(4, &GOAL_POSITION, 5);
        let _ = bus.sync_read(&PRESENT_POSITION, &[1, 2, 3]);
        let _ = bus.settle_registers(5, &[(&GOAL_POSITION, 7)]);
        let _ = torque_off(&mut bus, &[6]);
        bus.take_alarms();
    }
}

#[test]
fn an_endless_noise_ends() {
    let error = bus(vec![vec![0x00; 64]], true).ping(3).unwrap_err();
    assert!(matches!(error, BusError::Damaged { id: 3, .. }), "{error:?}");
}

#[test]
fn silence_is_no_reply() {
    let mut bus = bus(Vec::new(), false);
    assert_eq!(bus.ping(3), Err(BusError::NoReply { ids: vec![3] }));
    let silent = Err(BusError::NoReply { ids: vec![1, 2] });
    assert_eq!(bus.sync_read(&PRESENT_POSITION, &[1, 2]), silent);
    assert_eq!(torque_off(&mut bus, &[1, 2]), Err(BusError::TorqueOn { ids: vec![1, 2] }));
}
