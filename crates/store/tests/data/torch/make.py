"""Writes the files beside it with PyTorch and safetensors: what the reader's tests compare with."""

import collections
import os
import pickle
import zipfile

import torch
from safetensors.torch import save_file

torch.manual_seed(0)
base = torch.randn(6, 4)
shared = torch.randn(5, 3)
dtypes = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64, torch.complex64, torch.uint16, torch.uint32, torch.uint64,
    torch.float8_e4m3fn, torch.float8_e5m2,
]
plain = collections.OrderedDict()
for dtype in dtypes:
    plain[f"module.{dtype}"] = torch.randint(0, 2, (3, 2)).to(dtype)
plain["transposed"] = base.t()
plain["row"] = base[2]
plain["columns"] = base[:, 1:3]
plain["expanded"] = torch.tensor([1.5]).expand(4)
plain["scalar"] = torch.tensor(7)
plain["empty"] = torch.zeros(0, 3)
plain["parameter"] = torch.nn.Parameter(torch.randn(3))
plain["lm_head.weight"] = shared
plain["model.embed_tokens.weight"] = shared
plain["model.same_storage_other_shape"] = shared.view(3, 5)
torch.save(plain, "plain.pt")
expected = {k.removeprefix("module."): v.detach().clone().contiguous() for k, v in plain.items()}
save_file(expected, "plain.expected.safetensors")

# What the published MergeVLA code keeps beside a merged model.
masks = {
    "spatial": {"a.weight": torch.tensor([[True, False], [False, True]]), "b": torch.tensor([True])},
    "goal": {"a.weight": torch.tensor([[False, False], [True, True]]), "b": torch.tensor([False]), "rescaler": 1.25},
}
torch.save(masks, "tall_masks.pt")
torch.save({"spatial": 0, "goal": 1}, "task2idx.pt")
torch.save({"epoch": 3, "state_dict": {"w": torch.ones(2)}, "optimizer": {"m": torch.zeros(2)}}, "trainer.pt")
torch.save({"w": torch.ones(2)}, "legacy.pt", _use_new_zipfile_serialization=False)


class Hostile:
    def __reduce__(self):
        return os.system, ("echo pwned",)


torch.save({"w": Hostile()}, "hostile.pt")
with zipfile.ZipFile("compressed.pt", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("x/data.pkl", pickle.dumps({"a": 1}, protocol=2))

# A file of more than 4 GiB needs 64-bit fields in the zip directory; here they are forced on a small one.
zipfile.ZIP64_LIMIT = 0
zipfile.ZIP_FILECOUNT_LIMIT = 0
with zipfile.ZipFile("trainer.pt") as small, zipfile.ZipFile("zip64.pt", "w", zipfile.ZIP_STORED) as large:
    for name in small.namelist():
        large.writestr(name, small.read(name))
assert b"PK\x06\x06" in open("zip64.pt", "rb").read()
