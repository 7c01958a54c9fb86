//! Writes a single expert of the published size with random weights, and an observation for it: what benches of whole
//! forwards run on machines that have no checkpoint.
//!
//! `cargo run --release -p skillweld-synth --example published_policy -- DIR` leaves `DIR/expert` (4 GB) and
//! `DIR/observation.safetensors`.

use std::error::Error;
use std::path::PathBuf;

use skillweld_synth::{ExpertForm, PrismaticSpec, write_observation};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: published_policy DIR")?;
    let spec = PrismaticSpec { shards: 1, ..PrismaticSpec::published() };
    spec.write_expert(&dir.join("expert"), 0, ExpertForm::Full)?;
    write_observation(&dir.join("observation.safetensors"), "put the red block in the drawer", 0)?;
    Ok(())
}
