//! From observations to action chunks: image and text preprocessing, the Prismatic/MergeVLA forward, task switching and
//! sessions that route.

mod error;

pub use error::PolicyError;
