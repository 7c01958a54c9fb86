//! `skillweld robot calibrate`.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use skillweld_robot_so101::JOINTS;
use skillweld_robot_so101::calibration::{Calibration, Role, find, path, root};
use skillweld_robot_so101::protocol::Bus;
use skillweld_robot_so101::setup::{Centring, Range, Sweep};

use super::{PortArgument, lively, wait_for_enter};
use crate::Outcome;
use crate::console::{Console, Page, Tone, cell, number, table};
use crate::output_file;

/// Between two looks at the joints: 50 a second.
const SAMPLE: Duration = Duration::from_millis(20);

/// Find each joint's middle and range, write them to LeRobot's file and to the motors.
///
/// Torque is off: move the arm to the middle of its ranges, then each joint through its whole range. An arm that LeRobot has
/// calibrated needs nothing: its file is read.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("role").required(true))]
pub(crate) struct Args {
    /// The arm that is moved by a policy.
    #[arg(long, group = "role")]
    follower: bool,
    /// The arm that is moved by hand.
    #[arg(long, group = "role")]
    leader: bool,
    #[command(flatten)]
    port: PortArgument,
    /// The arm's name: that of its file.
    #[arg(long, value_name = "NAME")]
    id: String,
    /// Write what the file says to the motors, instead of calibrating anew.
    #[arg(long)]
    from_file: bool,
    /// Replace a calibration of that name.
    #[arg(long, conflicts_with = "from_file")]
    force: bool,
}

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    let role = if args.leader { Role::Leader } else { Role::Follower };
    let root = root(|name| std::env::var_os(name));
    let target = path(&root, role, &args.id)?;
    if args.from_file {
        let file = find(&root, role, &args.id)?;
        let calibration = Calibration::load(&file)?;
        calibration.write_to(&mut args.port.open()?)?;
        console.note(&format!("the motors at {} have the calibration of {}", args.port.port, file.display()));
        return Ok(Outcome::Done);
    }
    if let Ok(known) = find(&root, role, &args.id)
        && !args.force
    {
        bail!(
            "{} is there: it is used as it is; --from-file writes it to the motors, --force calibrates anew",
            known.display()
        );
    }
    // Before minutes of work.
    output_file::check_folder(target.parent().unwrap_or(&root))?;
    let mut bus = args.port.open()?;
    let centring = Centring::start(&mut bus)?;
    wait_for_enter("torque is off: move every joint to the middle of its range")?;
    let mut sweep = centring.centred(&mut bus)?;
    let calibration = loop {
        sample(&mut bus, &mut sweep, console)?;
        match sweep.finish() {
            Ok(calibration) => break calibration,
            Err(error) => console.warn(&error.to_string()),
        }
    };
    // First the file: from it the motors can be written again, and from them no file.
    calibration.save(&target)?;
    calibration.write_to(&mut bus).with_context(|| {
        format!("{} is there, but not all motors have it: --from-file writes it to them", target.display())
    })?;
    page(&calibration, console).print()?;
    console.note(&format!("written to {} and to the motors", target.display()));
    Ok(Outcome::Done)
}

/// Samples until Enter.
fn sample(bus: &mut Bus, sweep: &mut Sweep, console: Console) -> Result<()> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let waited = wait_for_enter("move each joint but wrist_roll through its whole range");
            done.store(true, Ordering::Relaxed);
            waited
        });
        let (mut shown, mut lost) = (0, None);
        while !done.load(Ordering::Relaxed) {
            match sweep.sample(bus) {
                Ok(ranges) => {
                    shown += 1;
                    if lively() && shown % 10 == 0 {
                        show(ranges);
                    }
                }
                Err(error) if error.is_lost() => {
                    console.warn("press Enter");
                    lost = Some(error);
                    break;
                }
                // The next sample may succeed.
                Err(_) => {}
            }
            std::thread::sleep(SAMPLE);
        }
        if lively() {
            println!();
        }
        waiting.join().unwrap_or_else(|_| bail!("the thread that waits for Enter has ended by a panic"))?;
        lost.map_or(Ok(()), |error| Err(error.into()))
    })
}

/// The ranges so far, over the last line.
fn show(ranges: &[Range; 6]) {
    let one = |(joint, range): (&skillweld_robot_so101::Motor, &Range)| {
        format!("{} {}..{} ({})", joint.name, range.min, range.max, range.now)
    };
    let line: Vec<String> = JOINTS.iter().zip(ranges).map(one).collect();
    print!("\r\x1b[K{}", line.join("  "));
    let _ = std::io::stdout().flush();
}

fn page(calibration: &Calibration, console: Console) -> Page {
    let mut page = Page::new(console);
    page.heading("Calibration", "");
    let mut rows = table(["joint", "id", "offset", "from", "to"]);
    for (joint, motor) in JOINTS.iter().zip(&calibration.motors) {
        rows.add_row([
            cell(Tone::Name, joint.name),
            number(motor.id),
            number(motor.homing_offset),
            number(motor.range_min),
            number(motor.range_max),
        ]);
    }
    page.table(rows);
    page
}
