"""Models of images: an MLP-Mixer, super resolution, an EfficientNet, a VAE's decoder, a DenseNet, a latent diffuser."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from torchport.evaluation.models.entry import Entry, Inputs, Size, register

Outputs = dict[str, torch.Tensor]
NAMES = ("mixer", "superres", "efficientnet", "decoder", "densenet", "crossunet")


class Mixing(nn.Module):
    """A block of MLP-Mixer (Tolstikhin et al. 2021): an MLP over places, then one over channels."""

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.over_places = nn.Sequential(nn.Linear(places, 2 * places), nn.GELU(), nn.Linear(2 * places, places))
        self.over_channels = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.over_places(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        x = x + self.over_channels(self.norms[1](x))
        return x


class Mixer(nn.Module):
    def __init__(self, side: int, width: int, layers: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.blocks = nn.Sequential(*[Mixing((side // 8) ** 2, width) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 101)

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        x = self.blocks(self.patches(pixel_values).flatten(2).transpose(1, 2))
        return {"logits": self.head(self.norm(x).mean(1))}


class SuperResolution(nn.Module):
    """EDSR (Lim et al. 2017): residual blocks without norms, pixel shuffle twice."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList([
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(layers)
        ])  # fmt: skip
        self.up = nn.Conv2d(width, 4 * width, 3, padding=1)
        self.last = nn.Conv2d(width, 12, 3, padding=1)

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        x = first = self.first(pixel_values)
        for block in self.blocks:
            x = x + 0.1 * block(x)
        x = F.pixel_shuffle(self.up(x + first), 2)
        return {"image": F.pixel_shuffle(self.last(F.relu(x)), 2)}


class Squeezed(nn.Module):
    """A block of EfficientNet (Tan and Le 2019): expand, depthwise, squeeze and excite, project; SiLU."""

    def __init__(self, inputs: int, outputs: int, window: int, stride: int) -> None:
        super().__init__()
        wide = 6 * inputs
        self.expand, self.norm1 = nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.depth = nn.Conv2d(wide, wide, window, stride, window // 2, groups=wide, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)
        self.down, self.up = nn.Conv2d(wide, inputs // 4, 1), nn.Conv2d(inputs // 4, wide, 1)
        self.project, self.norm3 = nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.silu(self.norm2(self.depth(F.silu(self.norm1(self.expand(x))))))
        h = h * self.up(F.silu(self.down(h.mean((2, 3), keepdim=True)))).sigmoid()
        h = self.norm3(self.project(h))
        return x + h if self.residual else h


class EfficientNet(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width)
        shapes = [(width, 3, 1), (3 * width // 2, 3, 2), (3 * width // 2, 3, 1), (5 * width // 2, 5, 2),
                  (5 * width // 2, 5, 1), (5 * width, 3, 2), (5 * width, 3, 1)]  # fmt: skip
        inputs = [width, *(shape[0] for shape in shapes)]
        self.blocks = nn.Sequential(*[Squeezed(i, *shape) for i, shape in zip(inputs, shapes, strict=False)])
        self.head = nn.Linear(inputs[-1], 101)

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        x = self.blocks(F.silu(self.norm(self.stem(pixel_values))))
        return {"logits": self.head(x.mean((2, 3)))}


class Decoder(nn.Module):
    """A VAE's decoder: transposed convolutions, group norm and SiLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4 * width, 3, padding=1)
        self.ups = nn.ModuleList([
            nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1), nn.ConvTranspose2d(2 * width, width, 4, 2, 1)
        ])  # fmt: skip
        self.norms = nn.ModuleList([nn.GroupNorm(8, 4 * width), nn.GroupNorm(8, 2 * width), nn.GroupNorm(8, width)])
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, latent: torch.Tensor) -> Outputs:
        x = self.first(latent)
        for norm, up in zip(self.norms, self.ups, strict=False):
            x = up(F.silu(norm(x)))
        return {"image": self.last(F.silu(self.norms[2](x))).tanh()}


class DenseNet(nn.Module):
    """Two dense blocks (Huang et al. 2017): norm, ReLU, 1 x 1, norm, ReLU, 3 x 3, concatenated to what came before."""

    def __init__(self, growth: int, layers: int) -> None:
        super().__init__()
        width = 2 * growth
        self.stem = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for _ in range(2):
            block = nn.ModuleList()
            for _ in range(layers):
                block.append(nn.Sequential(
                    nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 4 * growth, 1, bias=False),
                    nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
                ))  # fmt: skip
                width += growth
            self.blocks.append(block)
            self.transitions.append(nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1)))
            width //= 2
        self.head = nn.Linear(width, 101)

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        x = F.max_pool2d(self.stem(pixel_values), 3, 2, 1)
        for block, transition in zip(self.blocks, self.transitions, strict=True):
            for layer in block:
                x = torch.cat([x, layer(x)], 1)
            x = F.avg_pool2d(transition(x), 2)
        return {"logits": self.head(x.mean((2, 3)))}


class CrossUNet(nn.Module):
    """A latent diffuser's step: residual blocks with group norm, attention to places and to a text, one level down."""

    def __init__(self, width: int, text: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, width, 3, padding=1)
        self.convs = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(4)])
        self.norms = nn.ModuleList([nn.GroupNorm(16, width) for _ in range(4)])
        self.down = nn.Conv2d(width, width, 3, 2, 1)
        self.own, self.text = nn.MultiheadAttention(width, 8, batch_first=True), nn.Linear(text, 2 * width)
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.layers = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])
        self.wide, self.narrow = nn.Linear(width, 8 * width), nn.Linear(4 * width, width)
        self.last = nn.Conv2d(width, 4, 3, padding=1)

    def residual(self, x: torch.Tensor, at: int) -> torch.Tensor:
        h = self.convs[at](F.silu(self.norms[at](x)))
        return x + self.convs[at + 1](F.silu(self.norms[at + 1](h)))

    def forward(self, sample: torch.Tensor, text: torch.Tensor) -> Outputs:
        top = self.residual(self.first(sample), 0)
        x = self.down(top)
        batch, width, rows, columns = x.shape
        x = x.flatten(2).transpose(1, 2)
        h = self.layers[0](x)
        x = x + self.own(h, h, h, need_weights=False)[0]
        q = self.query(self.layers[1](x)).unflatten(2, (8, -1)).transpose(1, 2)
        k, v = self.text(text).unflatten(2, (2, 8, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        value, gate = self.wide(self.layers[2](x)).chunk(2, -1)
        x = x + self.narrow(value * F.gelu(gate))
        x = self.residual(x.transpose(1, 2).reshape(batch, width, rows, columns), 2)
        return {"sample": self.last(top + F.interpolate(x, scale_factor=2.0, mode="nearest"))}


def picture(size: Size, small: int, large: int) -> Inputs:
    side = small if size == "small" else large
    return {"pixel_values": torch.randn(2, 3, side, side)}


def mixer(size: Size) -> tuple[nn.Module, Inputs]:
    side, width, layers = (32, 32, 2) if size == "small" else (128, 384, 4)
    return Mixer(side, width, layers), picture(size, 32, 128)


def superres(size: Size) -> tuple[nn.Module, Inputs]:
    return SuperResolution(*((16, 1) if size == "small" else (64, 4))), picture(size, 9, 48)


def efficientnet(size: Size) -> tuple[nn.Module, Inputs]:
    return EfficientNet(16), picture(size, 32, 128)


def decoder(size: Size) -> tuple[nn.Module, Inputs]:
    width, side = (8, 5) if size == "small" else (48, 16)
    return Decoder(width), {"latent": torch.randn(2, 4, side, side)}


def densenet(size: Size) -> tuple[nn.Module, Inputs]:
    return DenseNet(*((8, 2) if size == "small" else (32, 4))), picture(size, 32, 128)


def crossunet(size: Size) -> tuple[nn.Module, Inputs]:
    width, text, side = (32, 24, 8) if size == "small" else (256, 512, 32)
    return CrossUNet(width, text), {"sample": torch.randn(2, 4, side, side), "text": torch.randn(2, 77, text)}


for name, make, outputs in (
    ("mixer", mixer, "logits"), ("superres", superres, "image"), ("efficientnet", efficientnet, "logits"),
    ("decoder", decoder, "image"), ("densenet", densenet, "logits"), ("crossunet", crossunet, "sample"),
):  # fmt: skip
    register(Entry(name, make, (outputs,), area="vision", kind="values", benched=False))
