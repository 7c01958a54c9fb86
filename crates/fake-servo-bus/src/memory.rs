//! The memory of one servo: what stands where, what is kept without power, and what a new servo holds.

/// Bytes of a servo's memory.
pub(crate) const SIZE: usize = 128;

/// Where the registers start. Words have their low byte first.
pub mod address {
    /// Two bytes: the model, 777 for an STS3215.
    pub const MODEL: u8 = 3;
    /// What the servo answers to, 0 … 253.
    pub const ID: u8 = 5;
    /// Index of the baud rate; 0 is 1,000,000.
    pub const BAUD_RATE: u8 = 6;
    /// Time before a reply, in 2 µs.
    pub const RETURN_DELAY: u8 = 7;
    /// 0: only PING and READ are answered; 1: all.
    pub const RESPONSE_LEVEL: u8 = 8;
    /// Two bytes: the least goal.
    pub const MIN_POSITION: u8 = 9;
    /// Two bytes: the largest goal.
    pub const MAX_POSITION: u8 = 11;
    /// Two bytes: becomes the torque limit at power-on, in 0.1 %.
    pub const MAX_TORQUE: u8 = 16;
    /// Two bytes, sign in bit 11: what is taken off the encoder's position.
    pub const HOMING_OFFSET: u8 = 31;
    /// 0 off, 1 on, 128: the present position becomes 2048.
    pub const TORQUE_ENABLE: u8 = 40;
    /// In 100 ticks/s²; 0 is unlimited.
    pub const ACCELERATION: u8 = 41;
    /// Two bytes, sign in bit 15.
    pub const GOAL_POSITION: u8 = 42;
    /// Two bytes, ticks/s, sign in bit 15; 0 is as fast as it can.
    pub const GOAL_VELOCITY: u8 = 46;
    /// Two bytes, in 0.1 %.
    pub const TORQUE_LIMIT: u8 = 48;
    /// 0: what is written below address 40 is kept without power; 1: it is in force until the power goes.
    pub const LOCK: u8 = 55;
    /// Two bytes, sign in bit 15.
    pub const PRESENT_POSITION: u8 = 56;
    /// Two bytes, ticks/s, sign in bit 15.
    pub const PRESENT_VELOCITY: u8 = 58;
    /// Two bytes, in 0.1 %, sign in bit 10.
    pub const PRESENT_LOAD: u8 = 60;
    /// In 0.1 V.
    pub const PRESENT_VOLTAGE: u8 = 62;
    /// In °C.
    pub const PRESENT_TEMPERATURE: u8 = 63;
    /// Bits: 1 voltage, 2 sensor, 4 heat, 8 current, 32 overload. Stands in every reply.
    pub const STATUS: u8 = 65;
    /// 1 while the shaft turns.
    pub const MOVING: u8 = 66;
    /// Two bytes, in 6.5 mA.
    pub const PRESENT_CURRENT: u8 = 69;
    /// In 100 ticks/s².
    pub const MAX_ACCELERATION: u8 = 85;
}

/// Baud rates by the index in [`address::BAUD_RATE`].
pub(crate) const BAUDS: [u32; 8] = [1_000_000, 500_000, 250_000, 128_000, 115_200, 76_800, 57_600, 38_400];

/// Whether a write to this address changes nothing.
pub(crate) fn is_read_only(at: usize) -> bool {
    matches!(at, 0..=4 | 56..=79) || at >= SIZE
}

/// Whether this address is of the memory that can outlive the power: the EEPROM and the factory parameters.
pub(crate) fn is_kept(at: usize) -> bool {
    !(40..80).contains(&at)
}

/// Words as a new servo holds them: address, value.
const FACTORY_WORDS: [(u8, u16); 7] = [
    (address::MODEL, 777),
    (address::MAX_POSITION, 4095),
    (address::MAX_TORQUE, 1000),
    (24, 16),  // least start-up force
    (28, 500), // protection current
    (address::GOAL_POSITION, 2048),
    (address::TORQUE_LIMIT, 1000),
];

/// Bytes as a new servo holds them. The firmware is one of those that were delivered with SO-101 arms.
const FACTORY_BYTES: [(u8, u8); 26] = [
    (0, 3),
    (1, 10),
    (address::ID, 1),
    (address::RETURN_DELAY, 250),
    (address::RESPONSE_LEVEL, 1),
    (13, 70), // largest temperature
    (14, 80), // largest voltage
    (15, 40), // least voltage
    (18, 12), // phase: a speed of 1 is one tick a second, 0 is as fast as it can
    (19, 44), // what it protects itself against: heat, current, overload
    (20, 47),
    (21, 32), // P
    (22, 32), // D
    (26, 1),
    (27, 1),
    (30, 1),
    (34, 20),
    (35, 200),
    (36, 80),
    (37, 10),
    (38, 200),
    (39, 10),
    (address::LOCK, 1),
    (address::PRESENT_VOLTAGE, 74),
    (address::PRESENT_TEMPERATURE, 30),
    (address::MAX_ACCELERATION, 50),
];

/// The memory of a new servo.
pub(crate) fn factory() -> [u8; SIZE] {
    let mut memory = [0; SIZE];
    for (at, value) in FACTORY_WORDS {
        memory[usize::from(at)..][..2].copy_from_slice(&value.to_le_bytes());
    }
    for (at, value) in FACTORY_BYTES {
        memory[usize::from(at)] = value;
    }
    memory
}

/// A number from sign and magnitude.
pub(crate) fn signed(word: u16, sign_bit: u32) -> i32 {
    let magnitude = i32::from(word & ((1 << sign_bit) - 1));
    if word >> sign_bit & 1 == 1 { -magnitude } else { magnitude }
}

/// Sign and magnitude of a number; what does not fit is cut off.
pub(crate) fn sign_magnitude(value: i32, sign_bit: u32) -> u16 {
    let magnitude = value.unsigned_abs().min((1 << sign_bit) - 1) as u16;
    magnitude | u16::from(value < 0) << sign_bit
}
