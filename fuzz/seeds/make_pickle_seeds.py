"""Makes pickle/: bare pickles whose storages have 48 bytes each, as the fuzz target provides them, and one small archive.

Run in this folder with PyTorch 2.11: python make_pickle_seeds.py
contains-itself.pkl is what fuzzing found: a dictionary that contains itself many times over, once slow to list.
"""

import argparse
import collections
import io
import pathlib
import zipfile

import torch

FOLDER = pathlib.Path(__file__).parent / "pickle"


def tensor(dtype, *shape):
    return torch.zeros(48 // dtype.itemsize, dtype=dtype).reshape(shape)


def roots():
    floats = dict(
        f32=tensor(torch.float32, 3, 4),
        f16=tensor(torch.float16, 24),
        bf16=tensor(torch.bfloat16, 2, 3, 4).transpose(0, 2),
        f64=tensor(torch.float64, 6)[1:4],
    )
    yield "dtypes", dict(
        i64=tensor(torch.int64, 6), u8=tensor(torch.uint8, 48), bool=tensor(torch.bool, 48)[::5], u16=tensor(torch.uint16, 24)
    )
    yield "ordered", collections.OrderedDict(floats)
    yield "parameter", {"w": torch.nn.Parameter(tensor(torch.float32, 12)), "e": tensor(torch.float32, 12)[:1].expand(7)}
    yield "training", dict(
        model=floats, ema=floats, opt={"state": {0: {"exp_avg": floats["f32"]}}}, args=argparse.Namespace(x=1.5, y={1, 2}, z=2**70)
    )


FOLDER.mkdir(exist_ok=True)
for name, root in roots():
    for protocol in (2, 4):
        file = io.BytesIO()
        torch.save(root, file, pickle_protocol=protocol)
        (FOLDER / f"{name}-{protocol}.pkl").write_bytes(zipfile.ZipFile(file).read("archive/data.pkl"))
file = io.BytesIO()
torch.save({"w": tensor(torch.float32, 12)}, file)
(FOLDER / "archive.pt").write_bytes(file.getvalue())
