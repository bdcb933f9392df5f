"""dit-cli evaluate beside PyPI's torch-fidelity and pytorch-fid: the same pictures, the same (random) weights, the same numbers.

    pip install torch==2.11.0 torchvision==0.26.0 torch-fidelity pytorch-fid scipy
    python compare.py path/to/dit-cli [COUNT]

Random weights do as well as the real ones: what is compared is arithmetic. Exits with 1 where a number differs by more than
one part in a thousand.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "tests" / "fixtures"))

import make_evaluation  # noqa: E402
from pytorch_fid import fid_score  # noqa: E402
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric  # noqa: E402
from torch_fidelity.metric_isc import isc_features_to_metric  # noqa: E402
from torch_fidelity.metric_kid import kid_features_to_metric  # noqa: E402
from torch_fidelity.metric_prc import prc_features_to_metric  # noqa: E402

TOLERANCE = 1e-3


def pictures(count, seed, spread):
    """Smooth random pictures with edges, (N, 64, 64, 3) uint8."""
    rng = np.random.default_rng(seed)
    small = torch.from_numpy(rng.normal(size=(count, 3, 6, 6)) * spread)
    smooth = torch.nn.functional.interpolate(small, size=(64, 64), mode="bicubic")
    edges = (rng.random((count, 1, 64, 64)) < 0.02) * 60.0
    return (smooth.numpy() * 50 + 128 + edges).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1).copy()


def batches(network, data, prepare):
    with torch.no_grad():
        parts = [network(prepare(torch.from_numpy(part).permute(0, 3, 1, 2))) for part in np.array_split(data, max(1, len(data) // 25))]
    return [torch.cat(part) for part in zip(*parts)]


def with_spatial(network, data):
    """torch-fidelity's pooled features and logits, and the spatial features of sFID, which it does not give: the first seven
    channels of a branch of its Mixed_6d, rows before columns before channels (Nash et al. 2021)."""
    seen = []
    keep = lambda _module, _inputs, out: seen.append(out[:, :7].permute(0, 2, 3, 1).flatten(1))
    hook = network.Mixed_6d.branch1x1.register_forward_hook(keep)
    pooled, logits = batches(network, data, lambda x: x)
    hook.remove()
    return pooled, logits, torch.cat(seen)


def frechet(a, b):
    """By scipy's root of the product of the covariances, as both packages have it."""
    moments = [(x.double().numpy().mean(0), np.cov(x.double().numpy(), rowvar=False)) for x in (a, b)]
    return fid_score.calculate_frechet_distance(*moments[0], *moments[1])


def run(binary, folder, features):
    command = [binary, "evaluate", "samples.npz", "reference.npz", "--features", features, "--json"]
    environment = {**os.environ, "DIT_WEIGHTS_DIR": str(folder)}
    output = subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE)
    return {name: found["value"] for name, found in json.loads(output.stdout)["metrics"].items()}


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    theirs, other = make_evaluation.with_random_weights()
    sides = [pictures(count, 1, 1.0), pictures(count, 2, 1.3)]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        # As the published file is: in the format from before PyTorch 1.6.
        weights = folder / "pt_inception-2015-12-05-6726825d.pth"
        torch.save(theirs.state_dict(), weights, _use_new_zipfile_serialization=False)
        for side, data in zip(["samples", "reference"], sides):
            np.savez(folder / f"{side}.npz", arr_0=data)
        ours = run(binary, folder, "inception")
        ours_pytorch_fid = run(binary, folder, "inception-pytorch-fid")["fid"]
    (a, logits, spatial), (b, _, other_spatial) = (with_spatial(theirs, data) for data in sides)
    expected = {"sfid": frechet(spatial, other_spatial)}
    statistics = [fid_features_to_statistics(x.double()) for x in (a, b)]
    expected["fid"] = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    expected["inception_score"] = isc_features_to_metric(logits, splits=1, shuffle=False)["inception_score_mean"]
    kid = kid_features_to_metric(a.double(), b.double(), kid_subsets=1, kid_subset_size=count, rng_seed=0, verbose=False)
    expected["kid"] = kid["kernel_inception_distance_mean"]
    expected.update(prc_features_to_metric(a, b, prc_neighborhood=3, prc_batch_size=10000, save_cpu_ram=False, verbose=False))
    names = ["fid", "sfid", "inception_score", "kid", "precision", "recall"]
    rows = [("torch-fidelity", name, ours[name], expected[name]) for name in names]
    a, b = (batches(other, data, lambda x: x.float() / 255)[0].flatten(1) for data in sides)
    rows.append(("pytorch-fid", "fid", ours_pytorch_fid, frechet(a, b)))
    worst = 0.0
    for package, metric, found, wanted in rows:
        difference = abs(found - wanted) / max(abs(wanted), 1e-12)
        worst = max(worst, difference)
        print(f"{package:15} {metric:16} {found:14.8g} {wanted:14.8g}  {difference:.1e}")
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
