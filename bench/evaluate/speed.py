"""Pictures a second through FID's Inception: dit-eval beside the published packages, in one run.

    pip install torch==2.11.0 torchvision==0.26.0 torch-fidelity pytorch-fid scipy safetensors
    cargo build --release -p dit-eval --example speed
    python speed.py ../../target/release/examples/speed [--rounds 5] [--batch 16] [--side 256] [--threads 2] [--weights FILE.pth]

Each program is a process of its own, and they take turns: a machine that slows down slows all of them. What is printed is the median
over rounds, and the median of ours over theirs of the same round. Weights are random ones unless a file is named: they do not change
the time.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
OURS = "dit-eval"
PACKAGES = ["torch-fidelity", "pytorch-fid"]


def random_weights(path):
    """In the format from before PyTorch 1.6, as the published file is."""
    sys.path.insert(0, str(HERE.parent.parent / "tests" / "fixtures"))
    import make_evaluation
    import torch

    theirs, _ = make_evaluation.with_random_weights()
    torch.save(theirs.state_dict(), path, _use_new_zipfile_serialization=False)


def measured(command, threads):
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return float(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--weights", type=pathlib.Path)
    for name, default in [("rounds", 5), ("batch", 16), ("side", 256), ("threads", 2)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = args.weights or pathlib.Path(folder) / "weights.pth"
        if args.weights is None:
            random_weights(weights)
        size = [str(args.batch), str(args.side)]
        commands = {OURS: [args.binary.resolve(), weights, *size]}
        for package in PACKAGES:
            commands[package] = [sys.executable, HERE / "peer.py", weights, package, *size, str(args.threads)]
        rates = {name: [] for name in commands}
        for at in range(args.rounds):
            for name, command in commands.items():
                rates[name].append(measured(command, args.threads))
            print(f"round {at + 1}: " + ", ".join(f"{name} {found[-1]:.1f}" for name, found in rates.items()), flush=True)
    print(f"{OURS:15} {statistics.median(rates[OURS]):6.1f} pictures/s")
    for package in PACKAGES:
        ratios = [ours / theirs for ours, theirs in zip(rates[OURS], rates[package])]
        print(f"{package:15} {statistics.median(rates[package]):6.1f} pictures/s, ours is {statistics.median(ratios):.2f} times as fast")


if __name__ == "__main__":
    main()
