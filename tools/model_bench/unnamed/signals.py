"""Models of signals and series: speech, a vocoder, a temporal network, translation, memories, Fourier mixing."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from torchport.evaluation.models.entry import Entry, Inputs, Size, register

Outputs = dict[str, torch.Tensor]
NAMES = ("wav2vec", "vocoder", "temporal", "seq2seq", "transformer_xl", "fnet")


class Wav2Vec(nn.Module):
    """Strided convolutions of a wave with group norm, grouped convolutions for places, a transformer (Baevski 2020)."""

    def __init__(self, width: int, inner: int, layers: int) -> None:
        super().__init__()
        shapes = [(1, 10, 5), (width, 3, 2), (width, 3, 2), (width, 2, 2)]
        self.convs = nn.ModuleList([nn.Conv1d(i, width, k, s, bias=False) for i, k, s in shapes])
        self.groups = nn.GroupNorm(width, width)
        self.norm, self.project = nn.LayerNorm(width), nn.Linear(width, inner)
        self.places = nn.Conv1d(inner, inner, 32, padding=16, groups=8)
        self.norms = nn.ModuleList([nn.LayerNorm(inner) for _ in range(2 * layers)])
        self.qkv = nn.ModuleList([nn.Linear(inner, 3 * inner) for _ in range(layers)])
        self.outs = nn.ModuleList([nn.Linear(inner, inner) for _ in range(layers)])
        self.feeds = nn.ModuleList([
            nn.Sequential(nn.Linear(inner, 4 * inner), nn.GELU(), nn.Linear(4 * inner, inner)) for _ in range(layers)
        ])  # fmt: skip

    def forward(self, wave: torch.Tensor) -> Outputs:
        x = F.gelu(self.groups(self.convs[0](wave[:, None])))
        for conv in self.convs[1:]:
            x = F.gelu(conv(x))
        x = self.project(self.norm(x.transpose(1, 2)))
        x = x + F.gelu(self.places(x.transpose(1, 2))[..., :-1]).transpose(1, 2)
        for i, feed in enumerate(self.feeds):
            q, k, v = self.qkv[i](x).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
            h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = self.norms[2 * i](x + self.outs[i](h))
            x = self.norms[2 * i + 1](x + feed(x))
        return {"hidden": x}


class Vocoder(nn.Module):
    """A wave of a spectrogram: transposed convolutions, each with residual blocks of dilations (Kong et al. 2020)."""

    def __init__(self, width: int, bands: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(bands, width, 7, padding=3)
        widths = [width, width // 2, width // 4, width // 8]
        self.ups = nn.ModuleList([
            nn.ConvTranspose1d(a, b, 2 * s, s, s // 2) for a, b, s in zip(widths, widths[1:], (8, 4, 2), strict=False)
        ])  # fmt: skip
        self.blocks = nn.ModuleList([
            nn.ModuleList([nn.Conv1d(b, b, 3, padding=d, dilation=d) for d in (1, 3, 5)]) for b in widths[1:]
        ])  # fmt: skip
        self.last = nn.Conv1d(widths[-1], 1, 7, padding=3)

    def forward(self, spectrogram: torch.Tensor) -> Outputs:
        x = self.first(spectrogram)
        for up, block in zip(self.ups, self.blocks, strict=True):
            x = up(F.leaky_relu(x, 0.1))
            for conv in block:
                x = x + conv(F.leaky_relu(x, 0.1))
        return {"wave": self.last(F.leaky_relu(x)).tanh()[:, 0]}


class Temporal(nn.Module):
    """Causal convolutions of a series, dilated, with weights of a norm and a residual (Bai et al. 2018)."""

    def __init__(self, inputs: int, width: int, layers: int) -> None:
        super().__init__()
        sizes = [inputs, *[width] * layers]
        self.one = nn.ModuleList([nn.Conv1d(a, width, 3, dilation=2**i) for i, a in enumerate(sizes[:-1])])
        self.two = nn.ModuleList([nn.Conv1d(width, width, 3, dilation=2**i) for i in range(layers)])
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(width, 1, 1)) for _ in range(layers)])
        self.skip = nn.Conv1d(inputs, width, 1)
        self.head = nn.Linear(width, 1)

    def forward(self, series: torch.Tensor) -> Outputs:
        x = series
        for i, (one, two, scale) in enumerate(zip(self.one, self.two, self.scales, strict=True)):
            pad = 2 * one.dilation[0]
            h = F.relu(one(F.pad(x, (pad, 0))))
            weight = scale * two.weight / two.weight.norm(dim=(1, 2), keepdim=True)
            h = F.relu(F.conv1d(F.pad(h, (pad, 0)), weight, two.bias, dilation=two.dilation))
            x = F.relu(h + (x if i else self.skip(x)))
        return {"forecast": self.head(x[..., -1])}


class Seq2Seq(nn.Module):
    """LSTM cells read a sentence, others write one and attend to it by an MLP (Bahdanau et al. 2015)."""

    def __init__(self, vocab: int, width: int) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(vocab, width), nn.Linear(2 * width, vocab)
        self.forth, self.back = nn.LSTMCell(width, width // 2), nn.LSTMCell(width, width // 2)
        self.decode = nn.LSTMCell(2 * width, width)
        self.keys, self.query, self.score = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 1)

    def read(self, cell: nn.LSTMCell, steps: list[torch.Tensor]) -> list[torch.Tensor]:
        state, found = None, []
        for step in steps:
            state = cell(step, state)
            found.append(state[0])
        return found

    def forward(self, input_ids: torch.Tensor, decoder_input_ids: torch.Tensor) -> Outputs:
        steps = list(self.embed(input_ids).unbind(1))
        back = self.read(self.back, steps[::-1])[::-1]
        memory = torch.cat([torch.stack(self.read(self.forth, steps), 1), torch.stack(back, 1)], -1)
        keys, h, c, found = self.keys(memory), memory[:, -1], torch.zeros_like(memory[:, -1]), []
        for step in self.embed(decoder_input_ids).unbind(1):
            weights = self.score(torch.tanh(keys + self.query(h)[:, None])).softmax(1)
            seen = (weights * memory).sum(1)
            h, c = self.decode(torch.cat([step, seen], -1), (h, c))
            found.append(torch.cat([h, seen], -1))
        return {"logits": self.head(torch.stack(found, 1))}


class TransformerXL(nn.Module):
    """Attention to a memory and itself; scores of distances are shifted into place (Dai et al. 2019)."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(500, width)
        self.q, self.r = (nn.ModuleList([nn.Linear(width, width, False) for _ in range(layers)]) for _ in range(2))
        self.kv = nn.ModuleList([nn.Linear(width, 2 * width, False) for _ in range(layers)])
        self.outs = nn.ModuleList([nn.Linear(width, width, False) for _ in range(layers)])
        self.content, self.distance = (nn.Parameter(0.1 * torch.randn(heads, width // heads)) for _ in range(2))
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2 * layers)])
        self.feeds = nn.ModuleList([
            nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)) for _ in range(layers)
        ])  # fmt: skip

    @staticmethod
    def shifted(scores: torch.Tensor) -> torch.Tensor:
        batch, heads, rows, columns = scores.shape
        padded = F.pad(scores, (1, 0)).reshape(batch, heads, columns + 1, rows)
        return padded[:, :, 1:].reshape(batch, heads, rows, columns)

    def forward(self, input_ids: torch.Tensor, memory: torch.Tensor) -> Outputs:
        x = self.embed(input_ids)
        rows, columns, width = x.shape[1], x.shape[1] + memory.shape[1], x.shape[2]
        rate = 10000.0 ** (torch.arange(0, width, 2, device=x.device) / -width)
        angle = torch.arange(columns - 1, -1, -1, device=x.device)[:, None] * rate
        sines = torch.cat([angle.sin(), angle.cos()], -1).to(x.dtype)
        seen = torch.arange(columns, device=x.device) <= torch.arange(rows, device=x.device)[:, None] + columns - rows
        for i, feed in enumerate(self.feeds):
            q = self.q[i](x).unflatten(-1, (self.heads, -1))
            k, v = self.kv[i](torch.cat([memory, x], 1)).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
            r = self.r[i](sines).unflatten(-1, (self.heads, -1)).permute(1, 2, 0)
            scores = (q + self.content).transpose(1, 2) @ k.transpose(-1, -2)
            scores = scores + self.shifted((q + self.distance).transpose(1, 2) @ r)
            scores = (scores * (width // self.heads) ** -0.5).masked_fill(~seen, float("-inf"))
            h = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
            x = self.norms[2 * i](x + self.outs[i](h))
            x = self.norms[2 * i + 1](x + feed(x))
        return {"hidden": x}


class FNet(nn.Module):
    """Mixing by the real part of a Fourier transform of places and channels (Lee-Thorp et al. 2022)."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(500, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2 * layers)])
        self.feeds = nn.ModuleList([
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)) for _ in range(layers)
        ])  # fmt: skip

    def forward(self, input_ids: torch.Tensor) -> Outputs:
        x = self.embed(input_ids)
        for i, feed in enumerate(self.feeds):
            wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
            x = self.norms[2 * i](x + torch.fft.fft2(wide).real.to(x.dtype))
            x = self.norms[2 * i + 1](x + feed(x))
        return {"hidden": x}


def wav2vec(size: Size) -> tuple[nn.Module, Inputs]:
    width, inner, layers, length = (16, 32, 1, 500) if size == "small" else (128, 256, 3, 8000)
    return Wav2Vec(width, inner, layers), {"wave": torch.randn(2, length)}


def vocoder(size: Size) -> tuple[nn.Module, Inputs]:
    width, frames = (32, 5) if size == "small" else (256, 40)
    return Vocoder(width, 80), {"spectrogram": torch.randn(1, 80, frames)}


def temporal(size: Size) -> tuple[nn.Module, Inputs]:
    width, layers, length = (16, 2, 30) if size == "small" else (96, 5, 256)
    return Temporal(7, width, layers), {"series": torch.randn(8, 7, length)}


def seq2seq(size: Size) -> tuple[nn.Module, Inputs]:
    vocab, width, length = (50, 16, 4) if size == "small" else (2000, 256, 20)
    ids = {name: torch.randint(0, vocab, (8, length + i)) for i, name in enumerate(("input_ids", "decoder_input_ids"))}
    return Seq2Seq(vocab, width), ids


def transformer_xl(size: Size) -> tuple[nn.Module, Inputs]:
    width, heads, layers, length = (32, 2, 1, 7) if size == "small" else (384, 6, 4, 96)
    ids = torch.randint(0, 500, (2, length))
    return TransformerXL(width, heads, layers), {"input_ids": ids, "memory": torch.randn(2, length + 1, width)}


def fnet(size: Size) -> tuple[nn.Module, Inputs]:
    width, layers, length = (32, 2, 9) if size == "small" else (384, 4, 128)
    return FNet(width, layers), {"input_ids": torch.randint(0, 500, (2, length))}


for name, make, outputs in (
    ("wav2vec", wav2vec, "hidden"), ("vocoder", vocoder, "wave"), ("temporal", temporal, "forecast"),
    ("seq2seq", seq2seq, "logits"), ("transformer_xl", transformer_xl, "hidden"), ("fnet", fnet, "hidden"),
):  # fmt: skip
    register(Entry(name, make, (outputs,), area="signals", kind="values", benched=False))
