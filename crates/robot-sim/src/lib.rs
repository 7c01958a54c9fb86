//! A simulated SO-101.
