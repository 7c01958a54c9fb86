"""The program, and what the demo makes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest


def from_environment(name: str) -> Path:
    """A path that `cargo xtask test` hands over."""
    value = os.environ.get(name)
    if not value or not Path(value).exists():
        pytest.fail(f"{name} names nothing that exists: {value!r}; `cargo xtask test` sets it", pytrace=False)
    return Path(value)


@pytest.fixture(scope="session")
def skillweld():
    """Runs the program; gives its one JSON document."""
    program = from_environment("SKILLWELD_BIN")

    def run(*arguments):
        command = [str(program), *map(str, arguments), "--json"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    return run


@pytest.fixture(scope="session")
def merged():
    return from_environment("SKILLWELD_DEMO_MERGED")


@pytest.fixture(scope="session")
def base():
    return from_environment("SKILLWELD_DEMO_BASE")
