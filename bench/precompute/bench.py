"""Latents precomputed by dit-cli and by Python, side by side on one machine.

    cargo build --release -p dit-cli
    python bench/precompute/bench.py --cli target/release/dit-cli

Needs torch, diffusers, numpy, Pillow. The same work on both sides: JPEG files of ImageNet's usual size are decoded, cropped as
DiT's training does, and encoded (with --flip both: image and mirror image) by a VAE of Stable Diffusion's geometry (random weights unless
--vae names others: speed does not depend on them); moments are written to disk. Loading is not timed. Contenders take turns,
so that a busy machine is busy for all of them; the ratios are the result.

Python at batch 1 is what fast-DiT's feature extraction does; batch 32 with a DataLoader is what a careful user writes.
"""

import argparse
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZE = 256


def make_pictures(folder, count):
    """JPEGs of 500 x 375 and 375 x 500 pixels, smooth with some grain, as photographs are."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(1)
    for index in range(count):
        sides = (500, 375) if index % 3 else (375, 500)
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(sides, Image.BICUBIC)
        grain = random.normal(0, 6, (sides[1], sides[0], 3))
        picture = Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))
        path = Path(folder) / f"class{index % 4}" / f"{index:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=90)


def make_vae(folder):
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, layers_per_block=2,
        block_out_channels=[128, 256, 512, 512], latent_channels=4, sample_size=SIZE, scaling_factor=0.18215)
    vae.save_pretrained(folder)


def prepare(data):
    """A JPEG's bytes to the cropped picture: Dhariwal & Nichol's centre crop by Pillow."""
    from PIL import Image

    picture = Image.open(io.BytesIO(data)).convert("RGB")
    while min(picture.size) >= 2 * SIZE:
        picture = picture.resize(tuple(side // 2 for side in picture.size), resample=Image.BOX)
    scale = SIZE / min(picture.size)
    picture = picture.resize(tuple(round(side * scale) for side in picture.size), resample=Image.BICUBIC)
    left, top = ((side - SIZE) // 2 for side in picture.size)
    return picture.crop((left, top, left + SIZE, top + SIZE))


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def python_side(data, vae, batch_size, precision, out, threads, flips):
    """One contender, in a process of its own; prints what it measured."""
    import numpy as np
    import torch
    from diffusers import AutoencoderKL

    torch.set_num_threads(threads)
    files = sorted(Path(data).rglob("*.jpg"))

    class Pictures(torch.utils.data.Dataset):
        def __len__(self):
            return len(files)

        def __getitem__(self, index):
            return torch.from_numpy(np.asarray(prepare(files[index].read_bytes())).copy())

    start = time.perf_counter()
    for path in files:
        prepare(path.read_bytes())
    decode_rate = len(files) / (time.perf_counter() - start)

    model = AutoencoderKL.from_pretrained(vae).eval()
    if precision == "bf16":
        model = model.to(torch.bfloat16).to(memory_format=torch.channels_last)
    os.makedirs(out, exist_ok=True)
    workers = 0 if batch_size == 1 else threads
    loader = torch.utils.data.DataLoader(Pictures(), batch_size=batch_size, num_workers=workers)
    encoding = 0.0
    start, used = time.perf_counter(), time.process_time() + children_seconds()
    with torch.no_grad():
        for index, images in enumerate(loader):
            x = images.permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.5)
            begin = time.perf_counter()
            for flip in range(flips):
                version = x.flip(3) if flip else x
                if precision == "bf16":
                    version = version.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
                moments = model.encode(version).latent_dist
                both = torch.cat([moments.mean, moments.logvar], 1).half().numpy()
                np.save(f"{out}/{index:06}-{flip}.npy", both)
            encoding += time.perf_counter() - begin
    seconds, used = time.perf_counter() - start, time.process_time() + children_seconds() - used
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({
        "images_per_second": len(files) / seconds, "images_per_cpu_second": len(files) / used, "encodes_per_second": flips * len(files) / encoding,
        "decode_images_per_second_core": decode_rate, "peak_rss_mib": usage / 1024}))


def ours(cli, data, vae, precision, out, batch_size, threads, flip):
    shutil.rmtree(out, ignore_errors=True)
    command = [cli, "precompute-latents", "--data", data, "--out", out, "--vae", vae, "--precision", precision,
               "--device", "cpu", "--threads", str(threads), "--flip", flip, "--json"]
    if batch_size:
        command += ["--batch-size", str(batch_size)]
    used = children_seconds()
    ran = subprocess.run(command, capture_output=True, text=True)
    used = children_seconds() - used  # loading the VAE counted
    if ran.returncode != 0:
        sys.exit(ran.stderr)
    summary = json.loads(ran.stdout)
    rate = summary["images_per_second"]
    seconds = summary["encoded_now"] / rate
    decoding = summary["decode_busy"] * seconds * len(os.sched_getaffinity(0))
    return {"images_per_second": rate, "images_per_cpu_second": summary["encoded_now"] / used, "encodes_per_second": (2 if flip == "both" else 1) * rate / max(summary["encode_busy"], 1e-9),
            "decode_images_per_second_core": summary["encoded_now"] / max(decoding, 1e-9),
            "peak_rss_mib": summary["peak_rss_bytes"] / 2**20}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cli", default="target/release/dit-cli")
    parser.add_argument("--vae", help="diffusers folder [default: random weights]")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--python-batch", type=int, nargs="*", default=[1, 32])
    parser.add_argument("--ours-batch", type=int, nargs="*", default=[0], help="batch sizes; 0 is the default")
    parser.add_argument("--only", nargs="*", help="contenders whose names begin so")
    parser.add_argument("--flip", choices=["none", "both"], default="none",
                        help="what both sides encode of a picture; fast-DiT encodes it once [default: none]")
    parser.add_argument("--python-side", nargs=7, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.python_side:
        data, vae, batch_size, precision, out, threads, flips = args.python_side
        return python_side(data, vae, int(batch_size), precision, out, int(threads), int(flips))

    with tempfile.TemporaryDirectory() as work:
        data, vae = f"{work}/data", args.vae or f"{work}/vae"
        make_pictures(data, args.images)
        if not args.vae:
            make_vae(vae)
        contenders = {}
        for batch_size, precision in [(batch, kind) for kind in ["fp32", "bf16"] for batch in args.python_batch]:
            command = [sys.executable, __file__, "--python-side", data, vae, str(batch_size), precision, f"{work}/npy",
                       str(args.threads), "2" if args.flip == "both" else "1"]
            contenders[f"python batch {batch_size} {precision}"] = lambda command=command: json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        for batch_size in args.ours_batch:
            for precision in ["fp32", "bf16"]:
                name = f"dit-cli {precision}" + (f" batch {batch_size}" if batch_size else "")
                contenders[name] = lambda precision=precision, batch_size=batch_size: ours(
                    args.cli, data, vae, precision, f"{work}/latents", batch_size, args.threads, args.flip)
        if args.only:
            contenders = {name: run for name, run in contenders.items() if name.startswith(tuple(args.only))}
        results = {name: [] for name in contenders}
        for turn in range(args.rounds):
            for name, run in contenders.items():
                results[name].append(run())
                print(f"round {turn + 1}: {name}: {json.dumps(results[name][-1])}", file=sys.stderr, flush=True)

    print(f"{args.images} JPEGs, {SIZE} px, {args.threads} threads, --flip {args.flip}; medians of {args.rounds} rounds\n")
    others = [f"python batch {batch} fp32" for batch in args.python_batch]
    print("| | images/s | images a CPU second | encodes/s | decode+crop images/s a core | peak MiB |"
          + "".join(f" times {other} |" for other in others))
    print("|---|---|---|---|---|---|" + "---|" * len(others))
    for name, runs in results.items():
        median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        def against(other):
            base = results.get(other)
            if not base:
                return "-"
            ratio = statistics.median(a["images_per_second"] / b["images_per_second"] for a, b in zip(runs, base))
            return f"{ratio:.2f}"
        print(f"| {name} | {median['images_per_second']:.2f} | {median['images_per_cpu_second']:.2f} | {median['encodes_per_second']:.2f} "
              f"| {median['decode_images_per_second_core']:.0f} | {median['peak_rss_mib']:.0f} "
              + "".join(f"| {against(other)} " for other in others) + "|")


if __name__ == "__main__":
    main()
