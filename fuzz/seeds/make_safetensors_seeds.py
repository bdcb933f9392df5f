"""Makes safetensors/: small files of the format, whole and damaged.

Run in this folder, with any Python 3: python make_safetensors_seeds.py
"""

import json
import pathlib
import struct

FOLDER = pathlib.Path(__file__).parent / "safetensors"


def file(header, data, padding=0):
    text = json.dumps(header, separators=(",", ":")).encode() + b" " * padding
    return struct.pack("<Q", len(text)) + text + bytes(data)


def tensor(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


two = {"a.weight": tensor("F32", [2, 3], 0, 24), "a.bias": tensor("BF16", [2], 24, 28)}
kinds = ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "F8_E4M3"]
sizes = [8, 4, 2, 2, 8, 4, 2, 1, 1, 1, 1]
starts = [8 * i for i in range(len(kinds))]
seeds = {
    "two": file(two, range(28)),
    "metadata": file({"__metadata__": {"format": "pt", "a": "\u00e4\n"}, **two}, range(28), padding=3),
    "kinds": file(
        {kind: tensor(kind, [8 // size], start, start + 8) for kind, size, start in zip(kinds, sizes, starts)}, range(8 * len(kinds))
    ),
    "scalar-and-empty": file({"s": tensor("F32", [], 0, 4), "e": tensor("F32", [0, 3], 4, 4)}, range(4)),
    "overlap": file({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 2, 6)}, range(6)),
    "short": file(two, range(20)),
    "no-tensors": file({}, []),
}

FOLDER.mkdir(exist_ok=True)
for name, contents in seeds.items():
    (FOLDER / f"{name}.safetensors").write_bytes(contents)
