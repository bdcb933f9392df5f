"""Peak memory of dit-cli evaluate over the number of pictures.

    python memory.py path/to/dit-cli [random|INCEPTION.pth [SECONDS]]

5,000 and 50,000 pictures of 32 pixels through the demo's features, to the end. With Inception's weights (random ones do, with what
speed.py needs) also 50,000 pictures of 256 pixels on either side, 10 GB in a sparse file: hashed and through the network for SECONDS (60), as all of
it would take hours; then each metric to its end, and all, of random features of Inception's widths that are planted in the cache (2 GB).
Linux, as memory is read from /proc.
"""

import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time
import zipfile

import numpy as np
import speed
from safetensors.numpy import save_file

PIECE = 1000
COUNT = 50_000
# Pictures in a file of features.
CHUNK = 1024


def write(path, count, side, rng, noisy=None):
    """An npz of `count` pictures, written a piece at a time: the first `noisy` (all) are noise, the others black and no more than
    holes in the file."""
    noisy = count if noisy is None else noisy
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, side, side, 3)}
    black = bytes(PIECE * side * side * 3) if noisy < count else b""
    with open(path, "wb") as file:
        with zipfile.ZipFile(Sparse(file), "w") as archive, archive.open("arr_0.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for start in range(0, count, PIECE):
                shape = (min(PIECE, count - start), side, side, 3)
                noise = start < noisy
                member.write(rng.integers(0, 256, shape, dtype=np.uint8).tobytes() if noise else black[: math.prod(shape)])


class Sparse:
    """A file in which long runs of zeros are holes."""

    def __init__(self, file):
        self.file = file

    def write(self, data):
        if len(data) > 4096 and not any(data[:: len(data) // 64]) and data.count(0) == len(data):
            self.file.seek(len(data), 1)
            return len(data)
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


def peak(pid):
    """Of a process that runs, in MB; resident pages of the mapped archive included."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) / 1024


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    weights = sys.argv[2] if len(sys.argv) > 2 else None
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 60
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for count in (5_000, 50_000):
            path = folder / f"{count}.npz"
            write(path, count, 32, rng)
            command = [binary, "evaluate", path, path, "--features", "demo", "--json"]
            record = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            print(f"32 px, demo, {count}: {record['peak_rss_bytes'] / 2**20:.0f} MB, {record['seconds_total']:.0f} s", flush=True)
            path.unlink()
        if weights == "random":
            weights = folder / "inception.pth"
            speed.random_weights(weights)
        if weights:
            inception(binary, pathlib.Path(weights).resolve(), seconds, folder, rng)


def inception(binary, weights, seconds, folder, rng):
    """50,000 pictures of 256 pixels on either side, of different hashes."""
    for name, noisy in [("samples.npz", 0), ("reference.npz", PIECE)]:
        write(folder / name, COUNT, 256, rng, noisy)
    cache = folder / "cache"
    command = [binary, "evaluate", folder / "samples.npz", folder / "reference.npz", "--features", weights, "--cache", cache]
    process = subprocess.Popen([*command, "--batch-size", "16"], stderr=subprocess.PIPE)
    # Both sides are hashed, and have their folders, before either's features are computed.
    folders = lambda: [path for path in cache.glob("*") if path.is_dir()]
    most, deadline = 0.0, None
    while deadline is None or time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"ended early: {process.stderr.read().decode()}")
        most = max(most, peak(process.pid))
        if deadline is None and len(folders()) == 2:
            deadline = time.monotonic() + seconds
        time.sleep(0.2)
    process.kill()
    process.wait()
    print(f"256 px, Inception, {COUNT}: {most:.0f} MB while hashing and for {seconds:.0f} s", flush=True)
    for shift, place in enumerate(folders()):
        plant(place, rng, 0.1 * shift)
    for metrics in ["fid", "sfid", "is", "pr", "kid", "fid,sfid,is,pr,kid"]:
        output = subprocess.run([*command, "--metrics", metrics, "--json"], check=True, stdout=subprocess.PIPE)
        record = json.loads(output.stdout)
        print(f"{metrics}: {record['peak_rss_bytes'] / 2**20:.0f} MB, {record['seconds_total']:.0f} s", flush=True)


def plant(place, rng, shift):
    """Random features in place of those that would take hours."""
    for chunk in range(-(-COUNT // CHUNK)):
        rows = min(CHUNK, COUNT - chunk * CHUNK)
        tensors = {
            name: np.abs(rng.standard_normal((rows, width), dtype=np.float32) + np.float32(shift))
            for name, width in {"pooled": 2048, "spatial": 2023, "logits": 1008}.items()
        }
        save_file(tensors, place / f"{chunk:06}.safetensors")


if __name__ == "__main__":
    main()
