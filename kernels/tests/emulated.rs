//! Every property on the emulation, and every barrier of every kernel taken away once: some property must notice.

use std::collections::BTreeMap;
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
    let mut families = BTreeMap::<&str, Vec<Property<Emulator>>>::new();
    for property in all::<Emulator>() {
        let check = property.check;
        trials.push(Trial::test(property.name, move || Ok(check(&Emulator::new(1), &mut runner(CASES, 1))?)));
        let family = property.name.split(':').next().unwrap_or(property.name);
        families.entry(family).or_default().push(property);
    }
    for (family, properties) in families {
        trials.push(Trial::test(format!("{family}: misses every barrier"), move || {
            misses_every_barrier(&properties)
        }));
    }
    for property in slow::<Emulator>() {
        trials.push(Trial::test(property.name, move || {
            Ok((property.check)(&Emulator::new(1), &mut runner(CASES, 1))?)
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Takes away each barrier that a family's properties reach; under some order of threads one of those that reach it must
/// fail.
fn misses_every_barrier(properties: &[Property<Emulator>]) -> Result<(), Failed> {
    let mut reached_by = BTreeMap::<(String, i32), Vec<&Property<Emulator>>>::new();
    for property in properties {
        let whole = Emulator::new(1);
        (property.check)(&whole, &mut runner(CASES, 1))?;
        for barrier in whole.barriers() {
            reached_by.entry(barrier).or_default().push(property);
        }
    }
    for ((kernel, line), properties) in reached_by {
        let fails = |seed: u64, property: &Property<Emulator>| {
            let without = Emulator::without_barrier(seed, &kernel, line);
            (property.check)(&without, &mut hasty_runner(CASES, 1 + seed)).is_err()
        };
        if !(0..SEEDS).any(|seed| properties.iter().any(|property| fails(seed, property))) {
            return Err(format!(
                "`{kernel}` gives the same without the barrier on line {line} of its source"
            )
            .into());
        }
    }
    Ok(())
}
