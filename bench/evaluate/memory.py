"""Peak memory of dit-cli evaluate over the number of pictures.

    python memory.py path/to/dit-cli [INCEPTION.pth [SECONDS]]

5,000 and 50,000 pictures of 32 pixels through the demo's features, to the end. With Inception's weights (random ones do) also archives
of 256 pixels, 1 and 10 GB of black in a sparse file: hashed, then through the network for SECONDS (60), as all of it would take hours.
Linux, as memory is read from /proc.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time
import zipfile

import numpy as np

PIECE = 1000


def write(path, count, side, rng):
    """An npz of `count` pictures, written a piece at a time; black and sparse without `rng`."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, side, side, 3)}
    if rng is not None:
        with zipfile.ZipFile(path, "w") as archive, archive.open("arr_0.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for start in range(0, count, PIECE):
                shape = (min(PIECE, count - start), side, side, 3)
                member.write(rng.integers(0, 256, shape, dtype=np.uint8).tobytes())
        return
    with open(path, "wb") as file:
        sparse = Sparse(file)
        with zipfile.ZipFile(sparse, "w") as archive, archive.open("arr_0.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            black = bytes(PIECE * side * side * 3)
            for start in range(0, count, PIECE):
                member.write(black[: min(PIECE, count - start) * side * side * 3])


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
    weights = str(pathlib.Path(sys.argv[2]).resolve()) if len(sys.argv) > 2 else None
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
        for count in (5_000, 50_000) if weights else ():
            path = folder / f"{count}.npz"
            write(path, count, 256, None)
            command = [binary, "evaluate", path, path, "--features", weights, "--batch-size", "16"]
            process = subprocess.Popen(command, stderr=subprocess.PIPE)
            most, deadline = 0.0, time.monotonic() + seconds
            while time.monotonic() < deadline and process.poll() is None:
                most = max(most, peak(process.pid))
                time.sleep(0.2)
            if process.poll() is not None:
                sys.exit(f"ended early: {process.stderr.read().decode()}")
            process.kill()
            process.wait()
            print(f"256 px, Inception, {count}: {most:.0f} MB while hashing and for {seconds:.0f} s", flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
