"""openpi's own client, from PyPI, against our server. It wants a NumPy before 2, so that it runs in another environment."""

import json
import subprocess
from pathlib import Path
from typing import Any, Dict

import numpy as np

from conftest import Serving, from_environment
from skillweld_client import Client


def test_openpis_client_and_chunk_broker_work(serving: Serving, observation: Dict[str, Any], tmp_path: Path) -> None:
    python = from_environment("SKILLWELD_OPENPI_PYTHON", "a Python that has openpi-client")
    arrays, key = tmp_path / "observation.npz", tmp_path / "key"
    # No slashes: the names become files in an archive.
    np.savez(arrays, **{name.replace("/", "|"): value for name, value in observation.items() if name != "prompt"})
    key.write_text("open-sesame\n")
    script = Path(__file__).with_name("openpi_session.py")
    with serving("--api-key-file", str(key)) as served:
        command = [python, script, str(served.port), "open-sesame", arrays]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stderr
        with Client(port=served.port, api_key="open-sesame") as client:
            expected, metadata = client.infer(observation), client.metadata
    theirs = json.loads(ran.stdout)
    assert theirs["numpy"].startswith("1."), "the other environment is the one that openpi-client wants"
    assert theirs["metadata"] == metadata
    assert theirs["dtype"] == "<f4" and theirs["infer_ms"] > 0
    assert theirs["routing"] == expected["routing"]
    np.testing.assert_array_equal(theirs["actions"], expected["actions"])
    # Three actions of a chunk, then the first of the next, of the same observation.
    np.testing.assert_array_equal(theirs["broker"], expected["actions"][[0, 1, 2, 0]])
    assert "Error in inference server" in theirs["error"] and "has 7 numbers; the policy wants 8" in theirs["error"]
