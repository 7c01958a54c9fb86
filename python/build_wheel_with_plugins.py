"""maturin, after `cargo xtask plugins` has put the merge methods beside the module.

The plugins come from this repository, so wheels are built in a checkout (`pip install ./python`), not from an sdist.
`--config-settings=profile=dev` is the tests': without optimisation, with the plugins that `cargo xtask test` has built.
"""

import subprocess
import sys
from pathlib import Path

import maturin

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = Path(__file__).resolve().parent / "skillweld" / "plugins"

get_requires_for_build_wheel = maturin.get_requires_for_build_wheel
prepare_metadata_for_build_wheel = maturin.prepare_metadata_for_build_wheel
get_requires_for_build_editable = maturin.get_requires_for_build_editable
prepare_metadata_for_build_editable = maturin.prepare_metadata_for_build_editable


def _prepare(config_settings):
    """Builds the plugins; gives maturin's settings."""
    settings = dict(config_settings or {})
    profile = settings.pop("profile", "release")
    if profile not in ("release", "dev"):
        raise SystemExit(f"profile={profile}: it is `release` or `dev`")
    command = ["cargo", "xtask", "plugins", "--into", str(PLUGINS)]
    command.append("--release" if profile == "release" else "--built")
    try:
        # pip shows what stands on standard error when a build fails.
        subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    except FileNotFoundError:
        raise SystemExit("Rust is needed to build skillweld: there is no `cargo` on the PATH")
    settings["build-args"] = f"{settings.get('build-args', '')} --profile {profile}".strip()
    return settings


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return maturin.build_wheel(wheel_directory, _prepare(config_settings), metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return maturin.build_editable(wheel_directory, _prepare(config_settings), metadata_directory)
