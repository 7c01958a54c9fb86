//! From a recipe to one merged checkpoint.

pub mod recipe;
