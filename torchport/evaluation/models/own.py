"""Models of kinds that `transformers` lacks: a U-Net, recurrent networks and a recommender with embedding bags."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from torchport.evaluation.models.entry import Entry, Inputs, Size, register

Outputs = dict[str, torch.Tensor]


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with group norm and SiLU, and a residual."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm1 = nn.GroupNorm(4, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(4, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        h = F.silu(self.norm1(self.first(x))) + time[:, : self.norm1.num_channels, None, None]
        skipped: torch.Tensor = self.skip(x)
        return F.silu(self.norm2(self.second(h))) + skipped


class UNet(nn.Module):
    """A diffusion U-Net: sinusoidal time embedding, average pooling down, nearest and bilinear up, skips by cat."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(32, 2 * width), nn.SiLU(), nn.Linear(2 * width, 2 * width))
        self.down1 = ConvBlock(3, width)
        self.down2 = ConvBlock(width, 2 * width)
        self.middle = ConvBlock(2 * width, 2 * width)
        self.up2 = ConvBlock(4 * width, width)
        self.up1 = ConvBlock(2 * width, width)
        self.out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> Outputs:
        frequency = torch.exp(torch.arange(16, device=sample.device, dtype=torch.float32) * -0.5)
        angle = timestep[:, None].to(torch.float32) * frequency[None]
        time = self.time(torch.cat([angle.sin(), angle.cos()], dim=1).to(sample.dtype))
        a = self.down1(sample, time)
        b = self.down2(F.avg_pool2d(a, 2), time)
        c = self.middle(F.max_pool2d(b, 2), time)
        up = F.interpolate(c, scale_factor=2.0, mode="nearest")
        up = self.up2(torch.cat([up, b], dim=1), time)
        up = F.interpolate(up, scale_factor=2.0, mode="bilinear", align_corners=False)
        return {"sample": self.out(self.up1(torch.cat([up, a], dim=1), time))}


class Recurrent(nn.Module):
    """A tagger: embedding, LSTM, bidirectional GRU; of cells, as Dynamo leaves nn.LSTM and nn.GRU to eager."""

    def __init__(self, vocab: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, hidden)
        self.lstm = nn.LSTMCell(hidden, hidden)
        self.forth = nn.GRUCell(hidden, hidden // 2)
        self.back = nn.GRUCell(hidden, hidden // 2)
        self.head = nn.Linear(hidden, vocab)

    def forward(self, input_ids: torch.Tensor) -> Outputs:
        steps = self.embed(input_ids).unbind(1)
        h = c = torch.zeros_like(steps[0])
        states = []
        for step in steps:
            h, c = self.lstm(step, (h, c))
            states.append(h)
        forth = self.scan(self.forth, states)
        back = self.scan(self.back, states[::-1])[::-1]
        y = torch.cat([torch.stack(forth, 1), torch.stack(back, 1)], dim=-1)
        x = torch.stack(states, 1)
        return {"logits": self.head(F.layer_norm(x + y, x.shape[-1:])), "state": c}

    @staticmethod
    def scan(cell: nn.GRUCell, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        state = inputs[0].new_zeros(inputs[0].shape[0], cell.hidden_size)
        states = []
        for value in inputs:
            state = cell(value, state)
            states.append(state)
        return states


class DLRM(nn.Module):
    """A recommender: dense MLP, embedding bags (sum, mean, max, one weighted), pairwise dot interaction, top MLP."""

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.bottom = nn.Sequential(nn.Linear(13, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim), nn.ReLU())
        self.bags = nn.ModuleList([nn.EmbeddingBag(rows, dim, mode=mode) for mode in ("sum", "mean", "max", "sum")])
        pairs = len(self.bags) * (len(self.bags) + 1) // 2
        self.register_buffer("pairs", torch.tril_indices(len(self.bags) + 1, len(self.bags) + 1, -1))
        self.top = nn.Sequential(nn.Linear(dim + pairs, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, 1))

    def forward(
        self, dense: torch.Tensor, indices: torch.Tensor, offsets: torch.Tensor, weights: torch.Tensor
    ) -> Outputs:
        x = self.bottom(dense)
        features = [x]
        for i, bag in enumerate(self.bags):
            weighted = {"per_sample_weights": weights} if i == len(self.bags) - 1 else {}
            features.append(bag(indices[i], offsets[i], **weighted))
        stacked = torch.stack(features, dim=1)
        products = torch.bmm(stacked, stacked.transpose(1, 2))
        first, second = self.get_buffer("pairs")
        interactions = products[:, first, second]
        return {"click": torch.sigmoid(self.top(torch.cat([x, interactions], dim=1))), "interactions": interactions}


def unet(size: Size) -> tuple[nn.Module, Inputs]:
    width, side = (16, 16) if size == "small" else (64, 64)
    return UNet(width), {"sample": torch.randn(2, 3, side, side), "timestep": torch.tensor([3, 721])}


def recurrent(size: Size) -> tuple[nn.Module, Inputs]:
    hidden, sequence = (64, 7) if size == "small" else (256, 24)
    return Recurrent(307, hidden), {"input_ids": torch.randint(0, 307, (3, sequence))}


def dlrm(size: Size) -> tuple[nn.Module, Inputs]:
    rows, dim, batch, each = (101, 16, 13, 3) if size == "small" else (20_000, 128, 128, 8)
    return DLRM(rows, dim), {
        "dense": torch.randn(batch, 13),
        "indices": torch.randint(0, rows, (4, batch * each)),
        "offsets": (torch.arange(batch) * each).expand(4, batch).contiguous(),
        "weights": torch.rand(batch * each),
    }


register(Entry("unet", unet, ("sample",), area="diffusion", kind="values"))
register(Entry("recurrent", recurrent, ("logits", "state")))
register(Entry("dlrm", dlrm, ("click", "interactions"), area="recommendation", kind="scores"))
