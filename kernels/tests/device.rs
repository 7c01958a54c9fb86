//! Every property on a GPU. Without one each shows as ignored, with the reason; `SKILLWELD_REQUIRE_GPU=1` makes that a
//! failure. `SKILLWELD_GPU_CASES` is the number of cases of each property, for tools that make a GPU slow.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use skillweld_gpu::Device;
use skillweld_kernels::properties::{all, of_devices, runner, slow};

/// Cases of a property, unless told otherwise.
const CASES: u32 = 64;

fn main() -> ExitCode {
    let cases =
        std::env::var("SKILLWELD_GPU_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1); // one stream, one order
    let device = Device::open(0);
    let required = std::env::var_os("SKILLWELD_REQUIRE_GPU").is_some_and(|value| value == "1");
    let trials = all::<Device>()
        .into_iter()
        .chain(slow::<Device>())
        .chain(of_devices())
        .map(|property| match &device {
            Ok(device) => {
                let device = device.clone();
                Trial::test(property.name, move || Ok((property.check)(&device, &mut runner(cases, 1))?))
            }
            Err(error) if required => {
                let reason = error.to_string();
                Trial::test(property.name, move || Err(reason.into()))
            }
            Err(error) => {
                Trial::test(property.name, || Ok(())).with_ignored_flag(true).with_kind(error.to_string())
            }
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
