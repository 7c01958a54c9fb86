//! Every property on the emulation, and every barrier of every kernel taken away once: some property must notice.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use skillweld_kernels::Emulator;
use skillweld_kernels::properties::{Property, all, hasty_runner, runner, slow};

/// Cases of a property.
const CASES: u32 = 12;
/// Orders of threads, and sets of cases, tried before a barrier counts as one that nobody misses.
const SEEDS: u64 = 16;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for property in all::<Emulator>() {
        let check = property.check;
        trials.push(Trial::test(property.name, move || Ok(check(&Emulator::new(1), &mut runner(CASES, 1))?)));
        let name = format!("{}, and misses every barrier", property.name);
        trials.push(Trial::test(name, move || misses_every_barrier(&property)));
    }
    for property in slow::<Emulator>() {
        trials.push(Trial::test(property.name, move || {
            Ok((property.check)(&Emulator::new(1), &mut runner(CASES, 1))?)
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Takes away each barrier that the property reaches; under some order of threads the property must fail.
fn misses_every_barrier(property: &Property<Emulator>) -> Result<(), Failed> {
    let whole = Emulator::new(1);
    (property.check)(&whole, &mut runner(CASES, 1))?;
    for (kernel, line) in whole.barriers() {
        let noticed = (0..SEEDS).any(|seed| {
            let without = Emulator::without_barrier(seed, &kernel, line);
            (property.check)(&without, &mut hasty_runner(CASES, 1 + seed)).is_err()
        });
        if !noticed {
            return Err(format!(
                "`{kernel}` gives the same without the barrier on line {line} of its source"
            )
            .into());
        }
    }
    Ok(())
}
