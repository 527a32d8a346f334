"""Models that write or fill in: diffusion, states of a sequence, retention, masked images, made weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from torchport.evaluation.models.entry import Entry, Inputs, Size, register

Outputs = dict[str, torch.Tensor]
NAMES = ("diffusion", "state_space", "retention", "masked", "hypernet")


def heads(x: torch.Tensor, count: int) -> torch.Tensor:
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


class Diffusion(nn.Module):
    """A diffusion transformer (Peebles & Xie 2023): patches, norms whose scales and shifts a step's embedding makes."""

    def __init__(self, width: int, layers: int, patch: int) -> None:
        super().__init__()
        self.patch, self.width = patch, width
        self.embed = nn.Conv2d(4, width, patch, patch)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.layers = nn.ModuleList([
            nn.ModuleDict({
                "made": nn.Linear(width, 6 * width), "qkv": nn.Linear(width, 3 * width),
                "out": nn.Linear(width, width), "up": nn.Linear(width, 4 * width), "down": nn.Linear(4 * width, width),
            }) for _ in range(layers)
        ])  # fmt: skip
        self.last, self.head = nn.Linear(width, 2 * width), nn.Linear(width, patch * patch * 8)

    def forward(self, sample: torch.Tensor, step: torch.Tensor) -> Outputs:
        rates = torch.exp(-9.2 * torch.arange(self.width // 2, device=step.device) / (self.width // 2))
        angle = step[:, None].float() * rates
        given = F.silu(self.time(torch.cat([angle.cos(), angle.sin()], -1).to(sample.dtype)))
        x = self.embed(sample)
        rows, columns = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        for layer in self.layers:
            shift, scale, gate, shift2, scale2, gate2 = layer["made"](given)[:, None].chunk(6, -1)
            q, k, v = layer["qkv"](self.norm(x) * (1 + scale) + shift).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
            x = x + gate * layer["out"](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            h = self.norm(x) * (1 + scale2) + shift2
            x = x + gate2 * layer["down"](F.gelu(layer["up"](h), approximate="tanh"))
        shift, scale = self.last(given)[:, None].chunk(2, -1)
        x = self.head(self.norm(x) * (1 + scale) + shift)
        x = x.view(-1, rows, columns, self.patch, self.patch, 8)
        return {"noise": torch.einsum("nhwpqc->nchpwq", x).flatten(2, 3).flatten(3)}


class StateSpace(nn.Module):
    """Diagonal states (Gu et al. 2022): kernels as long as the sequence, applied by FFT, a gate and a norm."""

    def __init__(self, width: int, states: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.layers = nn.ModuleList([nn.Linear(width, 2 * width) for _ in range(layers)])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(layers)])
        self.decay = nn.ParameterList([torch.randn(width, states) for _ in range(layers)])
        self.turn = nn.ParameterList([torch.randn(width, states) for _ in range(layers)])
        self.read = nn.ParameterList([torch.randn(width, states) / states for _ in range(layers)])
        self.skip = nn.ParameterList([torch.randn(width) for _ in range(layers)])

    def forward(self, values: torch.Tensor) -> Outputs:
        x = self.embed(values)
        length = x.shape[1]
        at = torch.arange(length, device=x.device)
        for i, (linear, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            u = norm(x).transpose(1, 2).float()
            decay, turn = F.softplus(self.decay[i].float())[..., None], self.turn[i].float()[..., None]
            kernel = (self.read[i].float()[..., None] * torch.exp(-0.1 * decay * at) * torch.cos(turn * at)).sum(1)
            spectrum = torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
            y = torch.fft.irfft(spectrum, n=2 * length)[..., :length] + u * self.skip[i].float()[:, None]
            x = x + F.glu(linear(F.gelu(y.transpose(1, 2).to(x.dtype))), -1)
        return {"hidden": x}


class Retention(nn.Module):
    """Retention (Sun et al. 2023): products of queries and keys that decay with distance, group norms, a gate."""

    def __init__(self, width: int, count: int, layers: int) -> None:
        super().__init__()
        self.count = count
        self.embed = nn.Embedding(500, width)
        self.layers = nn.ModuleList([
            nn.ModuleDict({
                "norm": nn.LayerNorm(width), "qkvg": nn.Linear(width, 4 * width, bias=False),
                "group": nn.GroupNorm(count, width), "out": nn.Linear(width, width, bias=False),
                "mix": nn.LayerNorm(width), "key": nn.Linear(width, 3 * width), "value": nn.Linear(3 * width, width),
                "gate": nn.Linear(width, width),
            }) for _ in range(layers)
        ])  # fmt: skip
        self.kept = nn.ParameterList([torch.rand(width) for _ in range(layers)])

    def forward(self, input_ids: torch.Tensor) -> Outputs:
        x = self.embed(input_ids)
        length = x.shape[1]
        at = torch.arange(length, device=x.device)
        rate = torch.log(1 - 2.0 ** (-5 - torch.arange(self.count, device=x.device)))
        distance = at[:, None] - at
        decay = torch.where(distance >= 0, torch.exp(distance * rate[:, None, None]), 0.0).to(x.dtype)
        for kept, layer in zip(self.kept, self.layers, strict=True):
            q, k, v, gate = layer["qkvg"](layer["norm"](x)).chunk(4, -1)
            q, k, v = (heads(one, self.count) for one in (q, k, v))
            found = ((q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5 * decay) @ v
            found = layer["group"](found.transpose(1, 2).flatten(2).flatten(0, 1)).view_as(x)
            x = x + layer["out"](F.silu(gate) * found)
            h = layer["mix"](x)  # channel mixing (RWKV, Peng et al. 2023): each token beside the one before
            h = torch.lerp(F.pad(h, (0, 0, 1, -1)), h, kept)
            x = x + torch.sigmoid(layer["gate"](h)) * layer["value"](F.relu(layer["key"](h)).square())
        return {"hidden": x}


class Masked(nn.Module):
    """A masked autoencoder (He et al. 2022): patches in an order of noise, a quarter encoded, all of them decoded."""

    def __init__(self, width: int, patch: int, places: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.place, self.token = nn.Parameter(torch.randn(places, width)), nn.Parameter(torch.randn(width))
        self.layers = nn.ModuleList([
            nn.ModuleDict({
                "norm": nn.LayerNorm(width), "qkv": nn.Linear(width, 3 * width), "out": nn.Linear(width, width),
                "feed": nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(),
                                      nn.Linear(4 * width, width)),
            }) for _ in range(2 * layers)
        ])  # fmt: skip
        self.head = nn.Linear(width, patch * patch * 3)

    def apply_layers(self, x: torch.Tensor, layers: nn.ModuleList) -> torch.Tensor:
        for layer in layers:
            q, k, v = (heads(one, 4) for one in layer["qkv"](layer["norm"](x)).chunk(3, -1))
            x = x + layer["out"](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            x = x + layer["feed"](x)
        return x

    def forward(self, pixel_values: torch.Tensor, noise: torch.Tensor) -> Outputs:
        x = self.embed(pixel_values).flatten(2).transpose(1, 2) + self.place
        order = noise.argsort(1)
        back, kept = order.argsort(1), order[:, : x.shape[1] // 4, None].expand(-1, -1, x.shape[2])
        half = len(self.layers) // 2
        seen = self.apply_layers(x.gather(1, kept), self.layers[:half])
        filled = torch.cat([seen, self.token.expand(x.shape[0], x.shape[1] - seen.shape[1], -1)], 1)
        x = filled.gather(1, back[..., None].expand_as(filled)) + self.place
        return {"patches": self.head(self.apply_layers(x, self.layers[half:]))}


class Hypernet(nn.Module):
    """A network that makes each example's convolution weights (Ha et al. 2017), and mixes of kernels by attention."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.made = nn.ModuleList([nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, width * 9))
                                   for _ in range(layers)])  # fmt: skip
        self.mixes = nn.ModuleList([nn.Linear(width, 4) for _ in range(layers)])
        self.bank = nn.ParameterList([torch.randn(4, width, width) * width**-0.5 for _ in range(layers)])
        self.norms = nn.ModuleList([nn.GroupNorm(4, width) for _ in range(layers)])
        self.head = nn.Linear(width, 10)

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        x = F.relu(self.stem(pixel_values))
        batch, width = x.shape[:2]
        for made, mix, bank, norm in zip(self.made, self.mixes, self.bank, self.norms, strict=True):
            about = x.mean((2, 3))
            weight = made(about).view(batch * width, 1, 3, 3)
            y = F.conv2d(x.reshape(1, batch * width, *x.shape[2:]), weight, padding=1, groups=batch * width).view_as(x)
            dense = torch.einsum("bk,kio->bio", mix(about).softmax(-1), bank)
            x = x + F.silu(norm(torch.einsum("bihw,bio->bohw", y, dense)))
        return {"logits": self.head(x.mean((2, 3)))}


def diffusion(size: Size) -> tuple[nn.Module, Inputs]:
    width, layers, side = (32, 1, 8) if size == "small" else (384, 4, 32)
    return Diffusion(width, layers, 2), {"sample": torch.randn(2, 4, side, side), "step": torch.tensor([7, 900])}


def state_space(size: Size) -> tuple[nn.Module, Inputs]:
    width, states, layers, length = (16, 3, 1, 21) if size == "small" else (128, 16, 4, 512)
    return StateSpace(width, states, layers), {"values": torch.randn(2, length, 8)}


def retention(size: Size) -> tuple[nn.Module, Inputs]:
    width, count, layers, length = (32, 2, 1, 11) if size == "small" else (384, 6, 4, 256)
    return Retention(width, count, layers), {"input_ids": torch.randint(0, 500, (2, length))}


def masked(size: Size) -> tuple[nn.Module, Inputs]:
    width, patch, side, layers = (32, 4, 16, 1) if size == "small" else (256, 16, 224, 3)
    places = (side // patch) ** 2
    return Masked(width, patch, places, layers), {
        "pixel_values": torch.randn(2, 3, side, side), "noise": torch.stack([torch.randperm(places) for _ in range(2)])
    }  # fmt: skip


def hypernet(size: Size) -> tuple[nn.Module, Inputs]:
    width, layers, side = (16, 1, 12) if size == "small" else (64, 4, 96)
    return Hypernet(width, layers), {"pixel_values": torch.randn(4, 3, side, side)}


for name, make, outputs in (
    ("diffusion", diffusion, "noise"), ("state_space", state_space, "hidden"), ("retention", retention, "hidden"),
    ("masked", masked, "patches"), ("hypernet", hypernet, "logits"),
):  # fmt: skip
    register(Entry(name, make, (outputs,), area="generators", kind="values", benched=False))
