//! Every test of the workspace.

use anyhow::Result;

use crate::process::{announce, cargo, run as run_command};
use crate::{docs, plugins, python, ray, setup};

/// With GR00T's port, which is a feature: in the same build as all other tests, for `-p` would compile half the dependencies again.
pub(crate) const ZMQ: [&str; 2] = ["--features", "skillweld-serve/zmq"];

pub(crate) fn run() -> Result<()> {
    // Tests load the plugins as a user does: from shared libraries beside the binary. The whole workspace at once, so that
    // dependencies get the features that they have in the tests.
    let on_ci = std::env::var_os("CI").is_some();
    std::thread::scope(|scope| {
        if on_ci {
            scope.spawn(install_all);
        }
        plugins::build(false, &[&["--workspace"][..], &ZMQ].concat())
    })?;
    announce("tests of the LAPACK backend");
    if on_ci && let Err(error) = setup::install_openblas() {
        println!("{error:#}");
    }
    if setup::has_openblas() {
        run_command(cargo().args(["test", "-p", "skillweld-linalg", "--features", "lapack"]))?;
    } else {
        println!("skipped: OpenBLAS is not installed (`cargo xtask setup lapack` installs it)");
    }
    // Without it the test of pages is left out, and says so; on CI it fails.
    if let Err(error) = setup::install_chromium() {
        println!(
            "skipped: no Chromium to look at pages with ({error}); `cargo xtask setup chromium` tries again"
        );
    }
    announce("all tests of the crates");
    run_command(cargo().args(["test", "--workspace"]).args(ZMQ))?;
    docs::write(true)?;
    let skillweld = plugins::profile_dir(false).join("skillweld");
    python::test(&skillweld)?;
    python::robots::test(&skillweld)?;
    ray::test(&skillweld)
}

/// What tests use besides Rust: apt and pip wait for the network and the disk while cargo compiles. What fails is tried again,
/// and reported, where it is used.
fn install_all() {
    let installs: [fn() -> Result<()>; 6] = [
        setup::install_openblas,
        setup::install_chromium,
        python::install,
        python::torch::install,
        python::robots::install,
        ray::install,
    ];
    for install in installs {
        drop(install());
    }
}
