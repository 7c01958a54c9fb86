"""LIBERO's task suites, imported only when they are used."""

from __future__ import annotations

import os
from typing import Any, List, Sequence, Tuple

#: Steps after which an episode has failed: a little more than the longest demonstration of the suite.
MAX_STEPS = {"spatial": 220, "object": 280, "goal": 300, "long": 520}

#: What LIBERO calls its suites.
LIBERO_NAMES = {"spatial": "libero_spatial", "object": "libero_object", "goal": "libero_goal", "long": "libero_10"}

#: Height and width of what the cameras render, in pixels: as for the training data. The server resizes.
RESOLUTION = 256

_MISSING = """\
LIBERO cannot be imported ({error}). In an environment of Python 3.8 to 3.10:
  git clone https://github.com/Lifelong-Robot-Learning/LIBERO.git
  pip install robosuite==1.4.1 bddl==1.0.1 easydict cloudpickle future gym==0.25.2 matplotlib opencv-python 'numpy<2' 'torch<2.6'
  export PYTHONPATH="$PWD/LIBERO:$PYTHONPATH"
examples/libero/README.md has the details. --dummy-env tries the client without LIBERO."""


class LiberoMissing(Exception):
    """LIBERO is not installed, or not whole."""


class LiberoSuite:
    """One of LIBERO's suites."""

    def __init__(self, name: str, seed: int) -> None:
        try:
            from libero.libero import benchmark, get_libero_path
            from libero.libero.envs import OffScreenRenderEnv
        except ImportError as error:
            raise LiberoMissing(_MISSING.format(error=error)) from error
        self.name = name
        self.max_steps = MAX_STEPS[name]
        self._seed = seed
        self._suite = benchmark.get_benchmark_dict()[LIBERO_NAMES[name]]()
        self._bddl_files = get_libero_path("bddl_files")
        self._make = OffScreenRenderEnv

    @property
    def prompts(self) -> List[str]:
        """The instruction of every task."""
        return [self._suite.get_task(index).language for index in range(self._suite.n_tasks)]

    def open(self, index: int) -> Tuple[Any, Sequence[Any]]:
        """The environment of a task, and the states that its episodes start from."""
        task = self._suite.get_task(index)
        bddl_file = os.path.join(self._bddl_files, task.problem_folder, task.bddl_file)
        env = self._make(bddl_file_name=bddl_file, camera_heights=RESOLUTION, camera_widths=RESOLUTION)
        # Places objects, even though episodes start from given states.
        env.seed(self._seed)
        return env, self._suite.get_task_init_states(index)
