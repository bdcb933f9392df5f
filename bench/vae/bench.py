"""Encoding and decoding one 256-pixel picture: diffusers beside this project, in turns, on one machine.

    cargo build --release -p dit-vae --example roundtrip
    python bench/vae/bench.py --ours target/release/examples/roundtrip

Needs torch and diffusers. Stable Diffusion's geometry, random weights, which do not change the speed. Figures are medians of the
rounds, ratios medians of the rounds' ratios to diffusers as it comes: fp32, its memory layout, SDPA.
"""

import argparse
import re
import statistics
import subprocess
import time


def median_seconds(work, times):
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", default="target/release/examples/roundtrip")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    import torch
    from diffusers import AutoencoderKL

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, layers_per_block=2,
        block_out_channels=[128, 256, 512, 512], latent_channels=4, sample_size=args.size).eval()
    image = torch.rand(1, 3, args.size, args.size) * 2 - 1
    latent = torch.randn(1, 4, args.size // 8, args.size // 8)

    def diffusers(model, image, latent):
        with torch.inference_mode():
            return (median_seconds(lambda: model.encode(image), args.repeat),
                    median_seconds(lambda: model.decode(latent), args.repeat))

    half = AutoencoderKL.from_config(vae.config).eval().to(torch.bfloat16).to(memory_format=torch.channels_last)
    to_half = lambda x: x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)

    def ours(*flags):
        command = [args.ours, "--size", str(args.size), "--repeat", str(args.repeat), *flags]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return tuple(float(re.search(rf"^{what} .* ([0-9.]+) s$", printed, re.M)[1]) for what in ("encode", "decode"))

    contenders = {
        "diffusers fp32": lambda: diffusers(vae, image, latent),
        "diffusers bf16, channels last": lambda: diffusers(half, to_half(image), to_half(latent)),
        "dit-vae fp32, plain": lambda: ours("--plain"),
        "dit-vae fp32": lambda: ours(),
        "dit-vae bf16, plain": lambda: ours("--bf16", "--plain"),
        "dit-vae bf16": lambda: ours("--bf16"),
    }
    results = {name: [] for name in contenders}
    for _ in range(args.rounds):
        for name, run in contenders.items():
            results[name].append(run())
    print("| | encode s | times diffusers fp32 | decode s | times diffusers fp32 |")
    print("|---|---|---|---|---|")
    for name, runs in results.items():
        cells = []
        for what in range(2):
            ratios = [base[what] / run[what] for base, run in zip(results["diffusers fp32"], runs)]
            cells += [f"{statistics.median(run[what] for run in runs):.3f}", f"{statistics.median(ratios):.2f}"]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
