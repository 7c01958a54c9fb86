//! Every case of `skillweld_kernels::cases` on a GPU, timed by the GPU's own clock, as ratios to a floor measured in the
//! same run.
//!
//! `cargo bench -p skillweld-kernels --bench device [-- FILTER]` lets criterion time; `… -- --table [FILTER]` takes seconds
//! and prints a line of JSON a case instead.

#![allow(clippy::print_stdout, reason = "a bench talks to people")]

use std::process::ExitCode;
use std::time::Duration;

use criterion::Criterion;
use skillweld_gpu::{Device, GpuError, Result, Target};
use skillweld_kernels::cases::{Case, all};

/// Runs of one case in `--table` after a warm-up; the median counts.
const RUNS: usize = 15;
/// Bytes copied to learn what the memory does.
const COPY_BYTES: usize = 4 << 30;

fn main() -> ExitCode {
    let device = match Device::open(0) {
        Ok(device) => device,
        Err(error) => {
            println!("{error}");
            return ExitCode::SUCCESS;
        }
    };
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let done = match arguments.split_first() {
        Some((first, rest)) if first == "--table" => table(&device, rest.first().map_or("", String::as_str)),
        _ => by_criterion(&device),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn by_criterion(device: &Device) -> Result<()> {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .configure_from_args();
    for case in all() {
        let mut work = match (case.prepare)(device) {
            Ok(work) => work,
            Err(error @ GpuError::Unavailable { .. }) => {
                println!("{}: {error}", case.name);
                continue;
            }
            Err(error) => return Err(error),
        };
        criterion.bench_function(case.name, |bencher| {
            bencher.iter_custom(|count| {
                let time_ms = device.time_ms(|| (0..count).try_for_each(|_| work())).expect("the case runs");
                Duration::from_secs_f64(f64::from(time_ms) / 1e3)
            });
        });
    }
    Ok(())
}

/// One line of JSON a case: name, time, floor, ratio.
fn table(device: &Device, filter: &str) -> Result<()> {
    let (major, minor) = device.compute_capability()?;
    let copy_bytes_per_s = copy_speed(device)?;
    println!(
        "{{\"gpu\": \"{}\", \"compute_capability\": \"{major}.{minor}\", \"driver\": {}, \"copy_bytes_per_s\": {copy_bytes_per_s:.4e}}}",
        device.name()?,
        device.driver_version()?
    );
    for case in all().iter().filter(|case| case.name.contains(filter)) {
        match median_ms(device, case) {
            Ok(time_ms) => {
                let floor_ms = case.bytes / copy_bytes_per_s * 1e3;
                println!(
                    "{{\"name\": \"{}\", \"time_us\": {:.2}, \"floor_us\": {:.2}, \"ratio\": {:.3}, \"bytes\": {:.4e}, \"matrix_flop\": {:.4e}}}",
                    case.name,
                    time_ms * 1e3,
                    floor_ms * 1e3,
                    time_ms / floor_ms,
                    case.bytes,
                    case.matrix_flop
                );
            }
            Err(error) => println!("{{\"name\": \"{}\", \"error\": \"{error}\"}}", case.name),
        }
    }
    Ok(())
}

fn median_ms(device: &Device, case: &Case) -> Result<f64> {
    let mut work = (case.prepare)(device)?;
    // Several at once, so that neither the clock's steps nor what the host does before the first launch show.
    let once_ms = f64::from(device.time_ms(&mut work).and_then(|_| device.time_ms(&mut work))?);
    let repeats = (2.0 / once_ms.max(1e-3)).ceil().max(4.0) as usize;
    let mut times = Vec::new();
    for _ in 0..RUNS {
        times.push(f64::from(device.time_ms(|| (0..repeats).try_for_each(|_| work()))?) / repeats as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[RUNS / 2])
}

/// Bytes read plus bytes written each second by the driver's own copy.
fn copy_speed(device: &Device) -> Result<f64> {
    let mut from = device.allocate(COPY_BYTES)?;
    let mut to = device.allocate(COPY_BYTES)?;
    device.fill(&mut from, 0x3c)?;
    let mut times = (0..9)
        .map(|_| device.time_ms(|| device.copy(&from, &mut to)))
        .collect::<std::result::Result<Vec<f32>, GpuError>>()?;
    times.sort_by(f32::total_cmp);
    Ok(2.0 * COPY_BYTES as f64 / (f64::from(times[4]) / 1e3))
}
