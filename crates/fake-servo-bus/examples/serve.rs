//! Serves six fake servos, ids 1 … 6, at a path that it prints, until its standard input is closed.

use std::io::Write;

use skillweld_fake_servo_bus::{ServoBus, ServoBusError, Servos};

fn main() -> Result<(), ServoBusError> {
    let bus = ServoBus::start(&Servos::new(&[1, 2, 3, 4, 5, 6]))?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", bus.path().display())?;
    out.flush()?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}
