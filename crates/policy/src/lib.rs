//! From observations to action chunks: image and text preprocessing, the Prismatic/MergeVLA forward, task switching and
//! sessions that route.

mod error;
pub mod image;
pub mod statistics;
pub mod text;

pub use error::PolicyError;
