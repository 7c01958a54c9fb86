//! The memory of an STS3215, register by register.
//!
//! Names and addresses are those of LeRobot's control table; units and what is kept without power are from the memory
//! tables of Feetech and its dealers.

use crate::protocol::BusError;

/// Where a register lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Kept without power if `Lock` is 0 when it is written; else in force until the power goes.
    Eeprom,
    /// Gone with the power.
    Sram,
    /// The factory's parameters: kept as the EEPROM's are.
    Factory,
}

/// One register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register {
    /// As LeRobot writes it, for example `Present_Position`.
    pub name: &'static str,
    /// Where it starts.
    pub address: u8,
    /// One or two bytes, the low one first.
    pub size: u8,
    /// The bit that says that the number is negative; the bits below are its magnitude. None: it has no sign.
    pub sign_bit: Option<u8>,
    /// Whether it outlives the power.
    pub memory: Memory,
    /// Whether it can be written.
    pub writable: bool,
    /// What 1 means; empty for numbers without unit.
    pub unit: &'static str,
}

impl Register {
    /// The register's bytes for a number.
    ///
    /// # Errors
    /// [`BusError::Value`] if the number does not fit.
    pub fn encode(&self, value: i32) -> Result<Vec<u8>, BusError> {
        let bits = self.sign_bit.map_or(8 * u32::from(self.size), u32::from);
        let magnitude = value.unsigned_abs();
        if magnitude >> bits != 0 || (value < 0 && self.sign_bit.is_none()) {
            return Err(BusError::Value { register: self.name, value });
        }
        let word = magnitude | u32::from(value < 0) << bits;
        Ok(word.to_le_bytes()[..usize::from(self.size)].to_vec())
    }

    /// The number in a register's bytes: `size` of them, more are ignored, missing ones are zero.
    pub fn decode(&self, bytes: &[u8]) -> i32 {
        let word = bytes
            .iter()
            .take(usize::from(self.size))
            .rev()
            .fold(0, |word, &byte| word << 8 | i32::from(byte));
        match self.sign_bit {
            Some(bit) if word >> bit & 1 == 1 => -(word & ((1 << bit) - 1)),
            Some(bit) => word & ((1 << bit) - 1),
            None => word,
        }
    }

    /// The number of this register in a block of memory that starts at `from`.
    pub(crate) fn within(&self, block: &[u8], from: u8) -> i32 {
        self.decode(block.get(usize::from(self.address - from)..).unwrap_or_default())
    }
}

macro_rules! registers {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $address:literal, $size:literal, $sign:expr, $memory:ident, $writable:literal, $unit:literal;)*) => {
        $($(#[$doc])* pub const $constant: Register = Register {
            name: $name,
            address: $address,
            size: $size,
            sign_bit: $sign,
            memory: Memory::$memory,
            writable: $writable,
            unit: $unit,
        };)*

        /// All registers, by address.
        #[cfg(test)]
        const ALL: &[Register] = &[$($constant),*];
    };
}

registers! {
    /// Firmware, the number before the point.
    FIRMWARE_MAJOR = "Firmware_Major_Version", 0, 1, None, Eeprom, false, "";
    /// Firmware, the number after the point.
    FIRMWARE_MINOR = "Firmware_Minor_Version", 1, 1, None, Eeprom, false, "";
    /// 777 is an STS3215.
    MODEL_NUMBER = "Model_Number", 3, 2, None, Eeprom, false, "";
    /// What the servo answers to, 0 … 253.
    ID = "ID", 5, 1, None, Eeprom, true, "";
    /// Index into [`BAUD_RATES`].
    BAUD_RATE = "Baud_Rate", 6, 1, None, Eeprom, true, "";
    /// Time before a reply.
    RETURN_DELAY = "Return_Delay_Time", 7, 1, None, Eeprom, true, "2 µs";
    /// 0: only PING and READ are answered; 1: everything that is not broadcast.
    RESPONSE_LEVEL = "Response_Status_Level", 8, 1, None, Eeprom, true, "";
    /// The least goal that the servo goes to.
    MIN_POSITION = "Min_Position_Limit", 9, 2, None, Eeprom, true, "ticks";
    /// The largest goal that the servo goes to.
    MAX_POSITION = "Max_Position_Limit", 11, 2, None, Eeprom, true, "ticks";
    /// Above it the servo protects itself.
    MAX_TEMPERATURE = "Max_Temperature_Limit", 13, 1, None, Eeprom, true, "°C";
    /// Above it the servo reports.
    MAX_VOLTAGE = "Max_Voltage_Limit", 14, 1, None, Eeprom, true, "0.1 V";
    /// Below it the servo reports.
    MIN_VOLTAGE = "Min_Voltage_Limit", 15, 1, None, Eeprom, true, "0.1 V";
    /// What the torque limit is after power-on.
    MAX_TORQUE = "Max_Torque_Limit", 16, 2, None, Eeprom, true, "0.1 %";
    /// Bits about directions and units; bit 2: velocities are in ticks/s, else in 50 ticks/s.
    PHASE = "Phase", 18, 1, None, Eeprom, true, "";
    /// Which faults turn torque off, by the bits of the status.
    UNLOADING = "Unloading_Condition", 19, 1, None, Eeprom, true, "";
    /// Which faults make the lamp blink, by the bits of the status.
    LED_ALARM = "LED_Alarm_Condition", 20, 1, None, Eeprom, true, "";
    /// The position loop's gain.
    P_COEFFICIENT = "P_Coefficient", 21, 1, None, Eeprom, true, "";
    /// The position loop's damping.
    D_COEFFICIENT = "D_Coefficient", 22, 1, None, Eeprom, true, "";
    /// The position loop's integral.
    I_COEFFICIENT = "I_Coefficient", 23, 1, None, Eeprom, true, "";
    /// The least torque that it starts with.
    MIN_STARTUP = "Minimum_Startup_Force", 24, 2, None, Eeprom, true, "0.1 %";
    /// Error that is left clockwise.
    CW_DEAD_ZONE = "CW_Dead_Zone", 26, 1, None, Eeprom, true, "ticks";
    /// Error that is left counter-clockwise.
    CCW_DEAD_ZONE = "CCW_Dead_Zone", 27, 1, None, Eeprom, true, "ticks";
    /// Above it the servo protects itself.
    PROTECTION_CURRENT = "Protection_Current", 28, 2, None, Eeprom, true, "6.5 mA";
    /// How many of the encoder's steps are one tick.
    ANGULAR_RESOLUTION = "Angular_Resolution", 30, 1, None, Eeprom, true, "";
    /// What is taken off the encoder's position, |x| ≤ 2047.
    HOMING_OFFSET = "Homing_Offset", 31, 2, Some(11), Eeprom, true, "ticks";
    /// 0 position, 1 velocity, 2 PWM, 3 steps.
    OPERATING_MODE = "Operating_Mode", 33, 1, None, Eeprom, true, "";
    /// Torque that is left in overload.
    PROTECTIVE_TORQUE = "Protective_Torque", 34, 1, None, Eeprom, true, "%";
    /// How long an overload lasts before the servo protects itself.
    PROTECTION_TIME = "Protection_Time", 35, 1, None, Eeprom, true, "10 ms";
    /// Load that counts as overload.
    OVERLOAD_TORQUE = "Overload_Torque", 36, 1, None, Eeprom, true, "%";
    /// The velocity loop's gain.
    VELOCITY_P = "Velocity_closed_loop_P_proportional_coefficient", 37, 1, None, Eeprom, true, "";
    /// How long an over-current lasts before the servo protects itself.
    OVER_CURRENT_TIME = "Over_Current_Protection_Time", 38, 1, None, Eeprom, true, "10 ms";
    /// The velocity loop's integral.
    VELOCITY_I = "Velocity_closed_loop_I_integral_coefficient", 39, 1, None, Eeprom, true, "";
    /// 0 off, 1 on, 128: the present position becomes 2048.
    TORQUE_ENABLE = "Torque_Enable", 40, 1, None, Sram, true, "";
    /// 0 is unlimited.
    ACCELERATION = "Acceleration", 41, 1, None, Sram, true, "100 ticks/s²";
    /// Where the shaft should be.
    GOAL_POSITION = "Goal_Position", 42, 2, Some(15), Sram, true, "ticks";
    /// How long the way should take.
    GOAL_TIME = "Goal_Time", 44, 2, None, Sram, true, "ms";
    /// The fastest on the way; 0 is as fast as it can.
    GOAL_VELOCITY = "Goal_Velocity", 46, 2, Some(15), Sram, true, "ticks/s";
    /// The largest torque.
    TORQUE_LIMIT = "Torque_Limit", 48, 2, None, Sram, true, "0.1 %";
    /// 0: writes to the EEPROM are kept without power.
    LOCK = "Lock", 55, 1, None, Sram, true, "";
    /// Where the shaft is.
    PRESENT_POSITION = "Present_Position", 56, 2, Some(15), Sram, false, "ticks";
    /// How fast it turns.
    PRESENT_VELOCITY = "Present_Velocity", 58, 2, Some(15), Sram, false, "ticks/s";
    /// How much of its voltage the motor gets.
    PRESENT_LOAD = "Present_Load", 60, 2, Some(10), Sram, false, "0.1 %";
    /// The supply.
    PRESENT_VOLTAGE = "Present_Voltage", 62, 1, None, Sram, false, "0.1 V";
    /// Inside the servo.
    PRESENT_TEMPERATURE = "Present_Temperature", 63, 1, None, Sram, false, "°C";
    /// The error bits that stand in every reply.
    STATUS = "Status", 65, 1, None, Sram, false, "";
    /// 1 while the shaft turns.
    MOVING = "Moving", 66, 1, None, Sram, false, "";
    /// Through the motor.
    PRESENT_CURRENT = "Present_Current", 69, 2, None, Sram, false, "6.5 mA";
    /// The goal that is in force.
    GOAL_POSITION_2 = "Goal_Position_2", 71, 2, Some(15), Sram, false, "ticks";
    /// Below it the shaft counts as standing.
    MOVING_VELOCITY = "Moving_Velocity", 80, 1, None, Factory, true, "50 ticks/s";
    /// A period of the servo's control.
    DTS = "DTs", 81, 1, None, Factory, true, "ms";
    /// What velocities are multiplied with.
    VELOCITY_UNIT = "Velocity_Unit_factor", 82, 1, None, Factory, true, "";
    /// A period of firmware 2.54 and newer.
    HTS = "Hts", 83, 1, None, Factory, true, "ns";
    /// The fastest of all.
    MAX_VELOCITY = "Maximum_Velocity_Limit", 84, 1, None, Factory, true, "50 ticks/s";
    /// The largest acceleration.
    MAX_ACCELERATION = "Maximum_Acceleration", 85, 1, None, Factory, true, "100 ticks/s²";
    /// What counts when the acceleration is 0.
    ACCELERATION_FACTOR = "Acceleration_Multiplier", 86, 1, None, Factory, true, "";
}

/// Baud rates by the number in [`BAUD_RATE`], as Feetech's memory tables have them. (LeRobot's table differs from index 5 on:
/// 57,600, 38,400, 19,200.)
pub const BAUD_RATES: [u32; 8] = [1_000_000, 500_000, 250_000, 128_000, 115_200, 76_800, 57_600, 38_400];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_two_registers_overlap_or_share_a_name() {
        for (before, after) in ALL.iter().zip(&ALL[1..]) {
            assert!(before.address + before.size <= after.address, "{} {}", before.name, after.name);
        }
        for register in ALL {
            assert_eq!(ALL.iter().filter(|other| other.name == register.name).count(), 1);
            assert_eq!(register.memory == Memory::Eeprom, register.address < 40, "{}", register.name);
            assert_eq!(register.memory == Memory::Factory, register.address >= 80, "{}", register.name);
        }
    }

    /// The crate `rustypot` has a table of its own, by LeRobot's names in small letters: whatever both know is the same.
    #[test]
    fn rustypot_has_the_same_table() {
        use rustypot::servo::feetech::sts3215;
        use rustypot::servo::{Encoding, RegisterAccess};

        let mut shared = 0;
        for register in ALL {
            let Some(theirs) = sts3215::register(&register.name.to_lowercase()) else { continue };
            shared += 1;
            let sign_bit = match theirs.encoding {
                Encoding::SignMagnitude { sign_bit } => Some(sign_bit),
                _ => None,
            };
            let theirs = (theirs.addr, theirs.size, sign_bit, theirs.access == RegisterAccess::ReadWrite);
            let ours = (register.address, register.size, register.sign_bit, register.writable);
            assert_eq!(ours, theirs, "{}", register.name);
        }
        assert!(shared >= 48, "{shared} registers of {}", ALL.len());
    }

    #[test]
    fn signs_are_bits_of_their_own() {
        assert_eq!(HOMING_OFFSET.encode(-709).unwrap(), [0xC5, 0x0A]);
        assert_eq!(HOMING_OFFSET.encode(2047).unwrap(), [0xFF, 0x07]);
        assert!(HOMING_OFFSET.encode(2048).is_err());
        assert_eq!(PRESENT_LOAD.decode(&[0x64, 0x04]), -100);
        assert_eq!(GOAL_POSITION.decode(&[0x00, 0x80]), 0);
        assert_eq!(TORQUE_ENABLE.encode(256), Err(BusError::Value { register: "Torque_Enable", value: 256 }));
        assert!(TORQUE_ENABLE.encode(-1).is_err());
    }

    proptest! {
        #[test]
        fn what_fits_comes_back(index in 0..ALL.len(), value in -70_000..70_000_i32) {
            let register = &ALL[index];
            if let Ok(bytes) = register.encode(value) {
                prop_assert_eq!(bytes.len(), usize::from(register.size));
                prop_assert_eq!(register.decode(&bytes), value);
            } else {
                let bits = register.sign_bit.unwrap_or(8 * register.size);
                let least = if register.sign_bit.is_some() { 1 - (1 << bits) } else { 0 };
                prop_assert!(value < least || value >= 1 << bits);
            }
        }
    }
}
