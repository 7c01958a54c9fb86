"""lerobot on the PyTorch of Debian, which is small and older than lerobot asks for.

It imports torchvision's second transforms, which that version does not have, for augmentation alone: nothing of it is used
in reading a dataset.
"""

import importlib.util
import sys
import types

import torchvision

if importlib.util.find_spec("torchvision.transforms.v2") is None:
    v2 = types.ModuleType("torchvision.transforms.v2")
    v2.Transform = object
    v2.functional = types.ModuleType("torchvision.transforms.v2.functional")
    sys.modules[v2.__name__] = v2
    sys.modules[v2.functional.__name__] = v2.functional
    torchvision.transforms.v2 = v2
