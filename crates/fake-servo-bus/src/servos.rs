use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::line::Line;
use crate::memory::{address, sign_magnitude};
use crate::servo::Servo;
use crate::{Fault, FirstOrder, GoalWrite, Packet, Plant, Schedule};

/// Servos on one line: what a test sets up, disturbs and looks at while a program talks to them. Clones are the same servos.
///
/// Functions about a servo that does not exist do nothing, and read zeros.
#[derive(Clone)]
pub struct Servos {
    line: Arc<Mutex<Line>>,
}

impl Servos {
    /// New servos with these ids, in the middle of their turn, whose shafts move freely.
    pub fn new(ids: &[u8]) -> Self {
        Self::with_plant(ids, Box::new(FirstOrder))
    }

    /// New servos that drive something.
    pub fn with_plant(ids: &[u8], plant: Box<dyn Plant>) -> Self {
        let servos = ids.iter().map(|&id| Servo::new(id)).collect();
        Self { line: Arc::new(Mutex::new(Line::new(servos, plant))) }
    }

    /// A panic elsewhere leaves registers that can still be looked at.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T: Default>(&self, id: u8, look: impl FnOnce(&mut Servo) -> T) -> T {
        let mut line = self.lock();
        line.servos.iter_mut().find(|servo| servo.byte(address::ID) == id).map(look).unwrap_or_default()
    }

    /// One byte of a servo's memory.
    pub fn byte(&self, id: u8, at: u8) -> u8 {
        self.with(id, |servo| servo.byte(at))
    }

    /// Two bytes of a servo's memory.
    pub fn word(&self, id: u8, at: u8) -> u16 {
        self.with(id, |servo| servo.word(at))
    }

    /// Sets bytes of a servo's memory, also those that only the servo writes, for good.
    pub fn set(&self, id: u8, at: u8, bytes: &[u8]) {
        self.with(id, |servo| {
            for (to, from) in servo.memory.iter_mut().skip(usize::from(at)).zip(bytes) {
                *to = *from;
            }
            servo.save();
        });
    }

    /// Sets what a servo is calibrated to, for good: its homing offset, and the least and the largest goal.
    pub fn calibrate(&self, id: u8, homing_offset: i32, min: u16, max: u16) {
        self.set(id, address::HOMING_OFFSET, &sign_magnitude(homing_offset, 11).to_le_bytes());
        self.set(id, address::MIN_POSITION, &min.to_le_bytes());
        self.set(id, address::MAX_POSITION, &max.to_le_bytes());
    }

    /// Error bits that a servo shows in every reply from now on.
    pub fn set_status(&self, id: u8, bits: u8) {
        self.set(id, address::STATUS, &[bits]);
    }

    /// Turns a shaft by hand to where its encoder shows this, before the homing offset.
    pub fn turn(&self, id: u8, encoder_ticks: f64) {
        self.with(id, |servo| {
            servo.shaft.position_ticks = encoder_ticks;
            servo.shaft.velocity_ticks_s = 0.0;
            servo.sense();
        });
    }

    /// Whether the servo turns and holds its shaft.
    pub fn torque_enabled(&self, id: u8) -> bool {
        self.byte(id, address::TORQUE_ENABLE) == 1
    }

    /// The goal position in its register, in ticks.
    pub fn goal(&self, id: u8) -> i32 {
        self.with(id, |servo| servo.goal())
    }

    /// The position that its register shows, in ticks.
    pub fn position(&self, id: u8) -> i32 {
        self.with(id, |servo| servo.present())
    }

    /// Every goal position that was ever written, in order.
    pub fn goals(&self) -> Vec<GoalWrite> {
        self.lock().goals.clone()
    }

    /// The last 100,000 packets, requests and replies, in order.
    pub fn packets(&self) -> Vec<Packet> {
        self.lock().packets.iter().cloned().collect()
    }

    /// Forgets the packets and goals so far.
    pub fn forget(&self) {
        let mut line = self.lock();
        line.packets.clear();
        line.goals.clear();
    }

    /// Puts a fault in line for a servo: the next request that it applies to meets it.
    pub fn inject(&self, id: u8, fault: Fault) {
        self.lock().faults.push(id, fault);
    }

    /// Faults at random from now on.
    pub fn schedule(&self, schedule: Schedule) {
        self.lock().faults.set_schedule(Some(schedule));
    }

    /// No more faults, neither those in line nor at random. A cable that was pulled stays so.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// Pulls a servo's own plug, or puts it back: it hears and says nothing.
    pub fn set_connected(&self, id: u8, connected: bool) {
        self.with(id, |servo| servo.connected = connected);
    }

    /// Pulls the cable to the host: its port hangs up, and nothing is left at its path.
    pub fn unplug(&self) {
        self.lock().unplug();
    }

    /// Puts the cable back: the path can be opened again. The servos had their power all the time.
    pub fn replug(&self) {
        self.lock().plugged = true;
    }

    /// Whether the cable is in.
    pub fn is_plugged(&self) -> bool {
        self.lock().plugged
    }

    /// Switches all servos off and on: torque is off, and what was written under the EEPROM's lock is forgotten.
    pub fn power_cycle(&self) {
        self.lock().servos.iter_mut().for_each(Servo::power_cycle);
    }

    /// The line's clock: real time behind a `ServoBus`, virtual time behind a `Loopback`.
    pub fn now(&self) -> Duration {
        self.lock().now
    }

    /// Lets virtual time pass, for use with a `Loopback`.
    pub fn advance(&self, time: Duration) {
        let mut line = self.lock();
        let moment = line.now + time;
        line.advance_to(moment);
    }
}
