"""A DiT with adaLN-Zero blocks in plain PyTorch, written from the paper (Peebles & Xie 2023) for comparisons of speed.

Parameters bear the published checkpoints' names. Shapes: N samples, T tokens, D width, H heads.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

TIMESTEP_FEATURES = 256
MAX_PERIOD = 10000.0


def timestep_features(t):
    """(N,) -> (N, 256): cosines, then sines, of geometrically spaced frequencies, in fp32."""
    half = TIMESTEP_FEATURES // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = t.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def modulate(x, shift, scale):
    return x * (1 + scale[:, None]) + shift[:, None]


class Linears(nn.Module):
    """Named linear layers, which the blocks put together."""

    def __init__(self, **sizes):
        super().__init__()
        for name, (inputs, outputs) in sizes.items():
            self.add_module(name, nn.Linear(inputs, outputs))


class Conditioner(nn.Sequential):
    """SiLU, then the Linear that regresses `chunks` vectors a sample."""

    def __init__(self, width, chunks):
        super().__init__(nn.SiLU(), nn.Linear(width, chunks * width))
        self.chunks = chunks

    def forward(self, c):
        return super().forward(c).chunk(self.chunks, dim=1)


class Block(nn.Module):
    def __init__(self, width, heads, mlp):
        super().__init__()
        self.width, self.heads = width, heads
        self.attn = Linears(qkv=(width, 3 * width), proj=(width, width))
        self.mlp = Linears(fc1=(width, mlp), fc2=(mlp, width))
        self.adaLN_modulation = Conditioner(width, 6)

    def normed(self, x):
        return F.layer_norm(x, (self.width,), eps=1e-6)

    def attention(self, x):
        n, tokens, width = x.shape
        qkv = self.attn.qkv(x).view(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (N, H, T, D / H)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.attn.proj(mixed.transpose(1, 2).reshape(n, tokens, width))

    def feed_forward(self, x):
        return self.mlp.fc2(F.gelu(self.mlp.fc1(x), approximate="tanh"))

    def forward(self, x, c):
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.adaLN_modulation(c)
        x = x + gate[:, None] * self.attention(modulate(self.normed(x), shift, scale))
        return x + mlp_gate[:, None] * self.feed_forward(modulate(self.normed(x), mlp_shift, mlp_scale))


class PatchEmbedder(nn.Module):
    def __init__(self, channels, width, patch):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)  # (N, T, D)


class TimestepEmbedder(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIMESTEP_FEATURES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t):
        return self.mlp(timestep_features(t).to(self.mlp[0].weight.dtype))


class LabelEmbedder(nn.Module):
    def __init__(self, rows, width):
        super().__init__()
        self.embedding_table = nn.Embedding(rows, width)

    def forward(self, labels):
        return self.embedding_table(labels)


class FinalLayer(nn.Module):
    def __init__(self, width, outputs):
        super().__init__()
        self.width = width
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = Conditioner(width, 2)

    def forward(self, x, c):
        shift, scale = self.adaLN_modulation(c)
        return self.linear(modulate(F.layer_norm(x, (self.width,), eps=1e-6), shift, scale))


class Dit(nn.Module):
    """`spec` is the configuration as checkpoints of this project carry it."""

    def __init__(self, spec):
        super().__init__()
        (side, width_of_latent), self.patch = spec["latent"], spec["patch"]
        assert side == width_of_latent and spec["block"] == "adaln-zero" and spec["sigma"] == "learned", spec
        self.grid, width = side // self.patch, spec["hidden"]
        self.out_channels = 2 * spec["in_channels"]
        self.x_embedder = PatchEmbedder(spec["in_channels"], width, self.patch)
        self.t_embedder = TimestepEmbedder(width)
        self.y_embedder = LabelEmbedder(spec["num_classes"] + 1, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid**2, width), requires_grad=False)
        mlp = int(width * spec["mlp_ratio"])
        self.blocks = nn.ModuleList(Block(width, spec["heads"], mlp) for _ in range(spec["depth"]))
        self.final_layer = FinalLayer(width, self.patch**2 * self.out_channels)

    def forward(self, x, t, labels):
        c = self.t_embedder(t) + self.y_embedder(labels)
        x = self.x_embedder(x) + self.pos_embed
        for block in self.blocks:
            x = block(x, c)
        x = self.final_layer(x, c).view(-1, self.grid, self.grid, self.patch, self.patch, self.out_channels)
        side = self.grid * self.patch
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.out_channels, side, side)


class Guided(nn.Module):
    """Classifier-free guidance as DiT was evaluated: samples and their null halves as one batch; three channels move."""

    def __init__(self, dit, null_class, scale):
        super().__init__()
        self.dit, self.null_class, self.scale = dit, null_class, scale

    def forward(self, x, t, labels):
        others = torch.full_like(labels, self.null_class)
        both = self.dit(torch.cat([x, x]), torch.cat([t, t]), torch.cat([labels, others])).float()
        given, none = both.chunk(2)
        moved = none[:, :3] + self.scale * (given[:, :3] - none[:, :3])
        return torch.cat([moved, given[:, 3:]], dim=1)
