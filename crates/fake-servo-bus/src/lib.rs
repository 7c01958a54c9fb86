//! A pseudo terminal that behaves like an arm of Feetech servos.
