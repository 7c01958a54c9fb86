"""lerobot on the PyTorch of Debian, which is small and older than lerobot asks for.

It imports torchvision's second transforms, which that version does not have, for augmentation alone: nothing of it is used
in reading a dataset. Videos it decodes by torchvision's VideoReader, which later versions build on PyAV as below.
"""

import importlib.util
import sys
import types

import av
import torch
import torchvision

if importlib.util.find_spec("torchvision.transforms.v2") is None:
    v2 = types.ModuleType("torchvision.transforms.v2")
    v2.Transform = object
    v2.functional = types.ModuleType("torchvision.transforms.v2.functional")
    sys.modules[v2.__name__] = v2
    sys.modules[v2.functional.__name__] = v2.functional
    torchvision.transforms.v2 = v2


class VideoReader:
    """The frames of a video from a key frame on, as lerobot's backend `pyav` asks for them."""

    def __init__(self, path, stream):
        self.container = av.open(path)
        self.stream = self.container.streams.get({stream: 0})[0]
        self.frames = self.container.decode(self.stream)

    def seek(self, seconds, keyframes_only):
        assert keyframes_only
        self.container.seek(int(seconds / self.stream.time_base), stream=self.stream)
        self.frames = self.container.decode(self.stream)
        return self

    def __iter__(self):
        for frame in self.frames:
            picture = torch.as_tensor(frame.to_ndarray(format="rgb24").transpose(2, 0, 1))
            yield {"data": picture, "pts": float(frame.pts * frame.time_base)}


torchvision.io.VideoReader = VideoReader
