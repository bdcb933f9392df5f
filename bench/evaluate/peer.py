"""Pictures a second through FID's Inception in the published packages: uint8 in, 2048 features (and logits) out.

    python peer.py WEIGHTS.pth torch-fidelity|pytorch-fid [BATCH] [SIDE] [THREADS]
"""

import sys
import time

import torch


def main():
    path, package = sys.argv[1:3]
    batch, side, threads = (int(x) for x in (sys.argv[3:6] + ["32", "256", "2"][len(sys.argv[3:6]) :]))
    torch.set_num_threads(threads)
    if package == "torch-fidelity":
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        network = FeatureExtractorInceptionV3(
            "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=path
        )
        prepare = lambda x: x
    else:
        from pytorch_fid import inception

        inception.load_state_dict_from_url = lambda _url, **_kwargs: torch.load(path)
        network = inception.InceptionV3([3]).eval()
        prepare = lambda x: x.float() / 255
    pictures = torch.randint(256, (batch, 3, side, side), dtype=torch.uint8)
    best = float("inf")
    with torch.no_grad():
        network(prepare(pictures))
        for _ in range(5):
            start = time.perf_counter()
            network(prepare(pictures))
            best = min(best, time.perf_counter() - start)
    print(f"{batch / best:.2f}")


if __name__ == "__main__":
    main()
