"""One optimiser step of a DiT in plain PyTorch: the loss of learned-sigma diffusion models (Nichol & Dhariwal 2021), AdamW, an
exponential moving average. Written from the papers' equations.
"""

import math

import torch
from torch.nn import functional as F

from model import Dit

STEPS = 1000


class Schedule:
    """Linear betas; every table in float64, cast to fp32 when used."""

    def __init__(self, device):
        beta = torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)
        kept = torch.cumprod(1 - beta, 0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
        posterior = beta * (1 - before) / (1 - kept)
        tables = dict(
            signal=kept.sqrt(), noise=(1 - kept).sqrt(), signal_inverse=kept.rsqrt(), noise_ratio=(1 / kept - 1).sqrt(),
            log_beta=beta.log(), log_posterior=torch.cat([posterior[1:2], posterior[1:]]).log(),
            mean_x0=beta * before.sqrt() / (1 - kept), mean_xt=(1 - before) * (1 - beta).sqrt() / (1 - kept))
        self.tables = {name: table.float().to(device) for name, table in tables.items()}

    def at(self, name, t):
        return self.tables[name][t][:, None, None, None]


def normal_cdf(x):
    """The usual tanh approximation."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def pixel_likelihood(x0, mean, log_variance):
    """log p of the bin of width 2 / 255 that x0 lies in; the outermost bins are open."""
    inverse = torch.exp(-0.5 * log_variance)
    above, below = (normal_cdf(inverse * (x0 - mean + side / 255)) for side in (1, -1))
    floor = 1e-12
    inside = torch.log((above - below).clamp(min=floor))
    lowest, highest = torch.log(above.clamp(min=floor)), torch.log((1 - below).clamp(min=floor))
    return torch.where(x0 < -0.999, lowest, torch.where(x0 > 0.999, highest, inside))


def loss(schedule, predict, x0, noise, t, labels):
    """mse of the noise, and the variational bound in bits, which moves the variance alone."""
    xt = schedule.at("signal", t) * x0 + schedule.at("noise", t) * noise
    predicted, fraction = predict(xt, t, labels).float().chunk(2, dim=1)
    mse = F.mse_loss(predicted, noise)

    low, high = schedule.at("log_posterior", t), schedule.at("log_beta", t)
    log_variance = low + (fraction + 1) / 2 * (high - low)
    x0_seen = schedule.at("signal_inverse", t) * xt - schedule.at("noise_ratio", t) * predicted.detach()
    mean = schedule.at("mean_x0", t) * x0_seen + schedule.at("mean_xt", t) * xt
    true_mean = schedule.at("mean_x0", t) * x0 + schedule.at("mean_xt", t) * xt
    divergence = 0.5 * (log_variance - low - 1 + torch.exp(low - log_variance)
                        + (true_mean - mean) ** 2 * torch.exp(-log_variance))
    terms = torch.where((t == 0)[:, None, None, None], -pixel_likelihood(x0, mean, log_variance), divergence)
    return mse + terms.mean() / math.log(2)


class Training:
    """fp32 weights, moments and average; bf16 means autocast around the network."""

    def __init__(self, case, args):
        from peer import load_tensors

        assert args.engine in ("eager", "compile"), "training is compared with PyTorch only"
        self.args = args
        weights, inputs = load_tensors(case["weights"]), load_tensors(case["input"], args.device)
        self.batch = tuple(inputs[name] for name in ("x0", "noise", "t", "labels"))
        dit = Dit(case["model"])
        dit.load_state_dict(weights, strict=True)
        self.dit = dit.to(args.device).train()
        self.parameters = [p for p in self.dit.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, weight_decay=0.0, fused=True)
        # On a GPU: kernels chosen by timing them; no CUDA graphs, whose savings batches of this size do not feel.
        mode = "default" if args.device == "cpu" else "max-autotune-no-cudagraphs"
        self.network = torch.compile(self.dit, mode=mode) if args.engine == "compile" else self.dit
        self.schedule = Schedule(args.device)
        self.losses = []

    def name(self):
        how = "torch.compile" if self.args.engine == "compile" else "eager"
        return f"PyTorch {torch.__version__.split('+')[0]} {how}"

    def predict(self, x, t, labels):
        with torch.autocast(torch.device(self.args.device).type, torch.bfloat16, self.args.precision == "bf16"):
            return self.network(x, t, labels)

    def warm_up(self):
        """Two steps, whose losses are part of the comparison."""
        for _ in range(2):
            self.step()

    def step(self):
        x0, noise, t, labels = self.batch
        self.optimizer.zero_grad(set_to_none=True)
        value = loss(self.schedule, self.predict, x0, noise, t, labels)
        value.backward()
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1e-4)
        self.losses.append(value.item())
        return {"loss": self.losses[-1]}

    def output(self):
        """The losses of the first steps: of the loaded weights, and after one update."""
        import numpy

        return numpy.array(self.losses[:3], dtype=numpy.float32)
