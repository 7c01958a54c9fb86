use crate::memory::{self, BAUDS, SIZE, address};
use crate::{Drive, Shaft};

/// How fast an STS3215 turns without load at 7.4 V: 60° in 0.222 s.
const MAX_VELOCITY_TICKS_S: f64 = 3073.0;
const TURN_TICKS: i32 = 4096;

/// One servo: its memory, and what of it would be left after the power was off.
pub(crate) struct Servo {
    pub(crate) memory: [u8; SIZE],
    saved: [u8; SIZE],
    /// A write that waits for ACTION.
    pub(crate) staged: Option<(u8, Vec<u8>)>,
    /// Whether its plug is in: a servo that hears and says nothing.
    pub(crate) connected: bool,
    pub(crate) shaft: Shaft,
}

impl Servo {
    /// A new servo that somebody has given an id, its shaft in the middle.
    pub(crate) fn new(id: u8) -> Self {
        let mut memory = memory::factory();
        memory[usize::from(address::ID)] = id;
        let shaft = Shaft { position_ticks: 2048.0, ..Shaft::default() };
        let mut servo = Self { memory, saved: memory, staged: None, connected: true, shaft };
        servo.sense();
        servo
    }

    pub(crate) fn byte(&self, at: u8) -> u8 {
        self.memory[usize::from(at)]
    }

    pub(crate) fn word(&self, at: u8) -> u16 {
        u16::from_le_bytes([self.byte(at), self.byte(at + 1)])
    }

    pub(crate) fn set_word(&mut self, at: u8, value: u16) {
        self.memory[usize::from(at)..][..2].copy_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn baud(&self) -> Option<u32> {
        BAUDS.get(usize::from(self.byte(address::BAUD_RATE))).copied()
    }

    /// `length` bytes; zeros beyond the memory's end.
    pub(crate) fn read(&self, at: u8, length: u8) -> Vec<u8> {
        let from = usize::from(at);
        (from..from + usize::from(length)).map(|at| self.memory.get(at).copied().unwrap_or(0)).collect()
    }

    /// What a WRITE does. With Lock = 1 the EEPROM's registers change too, but not for longer than the power is on: so say
    /// Feetech's memory tables.
    pub(crate) fn write(&mut self, at: u8, data: &[u8]) {
        let unlocked = self.byte(address::LOCK) == 0;
        let torque = self.byte(address::TORQUE_ENABLE);
        for (at, &byte) in (usize::from(at)..).zip(data) {
            if !memory::is_read_only(at) {
                self.memory[at] = byte;
                if unlocked && memory::is_kept(at) {
                    self.saved[at] = byte;
                }
            }
        }
        match self.byte(address::TORQUE_ENABLE) {
            0 | 1 => {}
            128 => {
                self.memory[usize::from(address::TORQUE_ENABLE)] = torque;
                self.centre();
            }
            _ => self.memory[usize::from(address::TORQUE_ENABLE)] = torque,
        }
        self.sense();
    }

    /// Chooses the homing offset that makes the present position 2048.
    fn centre(&mut self) {
        let wrapped = (self.encoder() - 2048 + TURN_TICKS / 2).rem_euclid(TURN_TICKS) - TURN_TICKS / 2;
        self.set_word(address::HOMING_OFFSET, memory::sign_magnitude(wrapped, 11));
    }

    /// As after the power was off and on: what was not saved is forgotten, torque is off.
    pub(crate) fn power_cycle(&mut self) {
        let mut memory = memory::factory();
        for at in (0..SIZE).filter(|&at| memory::is_kept(at)) {
            memory[at] = self.saved[at];
        }
        self.memory = memory;
        self.set_word(address::TORQUE_LIMIT, self.word(address::MAX_TORQUE));
        self.staged = None;
        self.sense();
    }

    /// Makes the present memory what is kept without power: how a test sets up a servo.
    pub(crate) fn save(&mut self) {
        self.saved = self.memory;
        self.sense();
    }

    fn encoder(&self) -> i32 {
        self.shaft.position_ticks.round() as i32
    }

    /// What the position register shows: within one turn, less the homing offset.
    pub(crate) fn present(&self) -> i32 {
        let offset = memory::signed(self.word(address::HOMING_OFFSET), 11);
        (self.encoder() - offset).rem_euclid(TURN_TICKS)
    }

    pub(crate) fn goal(&self) -> i32 {
        memory::signed(self.word(address::GOAL_POSITION), 15)
    }

    /// What the servo does about its registers: towards the goal, cut to the position limits, by the way that passes no end
    /// of the turn.
    pub(crate) fn drive(&self) -> Drive {
        let (min, max) = (self.word(address::MIN_POSITION), self.word(address::MAX_POSITION));
        let unlimited = min == 0 && max == 0;
        let goal = if unlimited || min > max {
            self.goal()
        } else {
            self.goal().clamp(i32::from(min), i32::from(max))
        };
        let velocity = memory::signed(self.word(address::GOAL_VELOCITY), 15).unsigned_abs();
        let acceleration = self.byte(address::ACCELERATION);
        Drive {
            torque: self.byte(address::TORQUE_ENABLE) == 1,
            goal_ticks: self.shaft.position_ticks.round() + f64::from(goal - self.present()),
            max_velocity_ticks_s: match velocity {
                0 => MAX_VELOCITY_TICKS_S,
                limit => f64::from(limit).min(MAX_VELOCITY_TICKS_S),
            },
            max_acceleration_ticks_s2: match acceleration {
                0 => f64::INFINITY,
                hundreds => 100.0 * f64::from(hundreds),
            },
            torque_limit: f64::from(self.word(address::TORQUE_LIMIT)) / 1000.0,
        }
    }

    /// Brings the registers that show the shaft up to date.
    pub(crate) fn sense(&mut self) {
        let velocity = self.shaft.velocity_ticks_s.round() as i32;
        let load = (self.shaft.load * 1000.0).round() as i32;
        self.set_word(address::PRESENT_POSITION, memory::sign_magnitude(self.present(), 15));
        self.set_word(address::PRESENT_VELOCITY, memory::sign_magnitude(velocity, 15));
        self.set_word(address::PRESENT_LOAD, memory::sign_magnitude(load, 10));
        self.set_word(address::PRESENT_CURRENT, (load.unsigned_abs() / 4) as u16);
        self.memory[usize::from(address::MOVING)] = u8::from(velocity != 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_under_lock_lasts_until_the_power_goes() {
        let mut servo = Servo::new(3);
        servo.write(address::MIN_POSITION, &[100, 0]);
        assert_eq!(servo.word(address::MIN_POSITION), 100);
        servo.power_cycle();
        assert_eq!(servo.word(address::MIN_POSITION), 0);
        servo.write(address::LOCK, &[0]);
        servo.write(address::MIN_POSITION, &[100, 0]);
        servo.power_cycle();
        assert_eq!((servo.word(address::MIN_POSITION), servo.byte(address::LOCK)), (100, 1));
        assert_eq!(servo.byte(address::ID), 3);
    }

    #[test]
    fn what_is_measured_cannot_be_written() {
        let mut servo = Servo::new(1);
        servo.write(address::PRESENT_POSITION, &[1, 1, 1, 1]);
        servo.write(address::MODEL, &[1, 1]);
        assert_eq!((servo.word(address::PRESENT_POSITION), servo.word(address::MODEL)), (2048, 777));
    }

    #[test]
    fn the_position_is_the_encoder_less_the_offset_within_a_turn() {
        let mut servo = Servo::new(1);
        servo.shaft.position_ticks = 10.0;
        servo.write(address::HOMING_OFFSET, &memory::sign_magnitude(100, 11).to_le_bytes());
        assert_eq!(servo.word(address::PRESENT_POSITION), 4006);
        servo.write(address::HOMING_OFFSET, &memory::sign_magnitude(-100, 11).to_le_bytes());
        assert_eq!(servo.word(address::PRESENT_POSITION), 110);
        servo.write(address::TORQUE_ENABLE, &[128]);
        assert_eq!((servo.word(address::PRESENT_POSITION), servo.byte(address::TORQUE_ENABLE)), (2048, 0));
    }

    #[test]
    fn goals_are_cut_to_the_limits() {
        let mut servo = Servo::new(1);
        servo.write(address::MIN_POSITION, &[0xE8, 3, 0xD0, 7]);
        servo.write(address::GOAL_POSITION, &3000_u16.to_le_bytes());
        assert_eq!((servo.goal(), servo.drive().goal_ticks), (3000, 2000.0));
    }
}
