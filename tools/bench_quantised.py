"""Linear layers and models with quantised weights: torchport against stock Inductor, on this machine.

    python tools/bench_quantised.py --rows 1 4 16 64 256 --threads 1
    python tools/bench_quantised.py --models llama bert vit --rows 1 64 --layers 2

Each line: one form in which libraries write such a layer, as plain PyTorch; weights [N, K] one after another, more of
them than the second cache holds. With `--models` all linear layers of a model of `transformers` are quantised so; up
to 4 rows are as many sequences of one token. Times are those of one layer, or of a model, in the fastest of several
rounds, in turns, in CPU time. `error`: torchport's greatest error against float64 in times of Inductor's.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import transformers as hf
from torch import nn
from torchport_cpu.host import host_info

GROUP = 32
HEADS, WORDS = 8, 1024


@dataclass(frozen=True)
class Weights:
    """Of one layer. Scales are numbers that bfloat16 has."""

    whole: torch.Tensor
    packed: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    scales: torch.Tensor
    floats: torch.Tensor

    @staticmethod
    def random(n: int, k: int, dtype: torch.dtype) -> Weights:
        whole = torch.randint(-128, 128, (n, k), dtype=torch.int8)
        packed = torch.randint(0, 256, (n, k // 2), dtype=torch.uint8)
        scale, scales = ((torch.randint(1, 128, shape) / 2**13).to(dtype) for shape in ((n, 1), (n, k // GROUP, 1)))
        zero, floats = torch.randint(-8, 8, (n, 1), dtype=torch.int8), whole.float().to(torch.float8_e4m3fn)
        return Weights(whole, packed, scale, zero, scales, floats)

    @staticmethod
    def of(weight: torch.Tensor) -> Weights:
        """``weight`` [N, K], rounded."""
        wide, (n, k) = weight.float(), weight.shape
        scale = (wide.abs().amax(1, keepdim=True) / 127).to(weight.dtype)
        groups = wide.view(n, k // GROUP, GROUP)
        scales = (groups.abs().amax(2, keepdim=True) / 7).to(weight.dtype)
        whole = (wide / scale.float()).round().clamp(-127, 127).to(torch.int8)
        four = ((groups / scales.float()).round().clamp(-8, 7) + 8).to(torch.uint8).view(n, k // 2, 2)
        zero, floats = torch.zeros(n, 1, dtype=torch.int8), whole.float().to(torch.float8_e4m3fn)
        return Weights(whole, four[..., 0] | four[..., 1] << 4, scale, zero, scales, floats)


Form = Callable[[torch.Tensor, Weights], torch.Tensor]


def scaled_after(x: torch.Tensor, w: Weights) -> torch.Tensor:
    """int8, the product scaled (torchao's)."""
    return (x @ w.whole.t().to(x.dtype)) * w.scale.view(-1).to(x.dtype)


def scaled_before(x: torch.Tensor, w: Weights) -> torch.Tensor:
    """int8 with zero points, the weight scaled."""
    return F.linear(x, (w.whole.to(x.dtype) - w.zero.to(x.dtype)) * w.scale.to(x.dtype))


def int4(x: torch.Tensor, w: Weights) -> torch.Tensor:
    """int4 in groups, two in a byte."""
    unpacked = torch.stack([w.packed & 15, w.packed >> 4], -1).view(*w.scales.shape[:2], GROUP)
    return F.linear(x, ((unpacked.to(x.dtype) - 8) * w.scales.to(x.dtype)).view(w.whole.shape))


def operator(x: torch.Tensor, w: Weights) -> torch.Tensor:
    """aten's operator for int8 weights."""
    if x.dtype == torch.float64:
        return scaled_after(x, w)
    return torch.ops.aten._weight_int8pack_mm(x, w.whole, w.scale.view(-1).to(x.dtype))


def dynamic(x: torch.Tensor, w: Weights) -> torch.Tensor:
    """int8, activations quantised by rows (torchao's: shifted to unsigned bytes)."""
    wide = x.float()
    step = (wide.abs().amax(1, keepdim=True) / 127).clamp(min=1e-7)
    signed = (wide / step).round().clamp(-128, 127).to(torch.int32)
    if x.dtype == torch.float64:
        total = (signed.double() @ w.whole.double().t()).to(torch.int32)
    else:
        shift = 128 * w.whole.t().sum(0, keepdim=True, dtype=torch.int32)
        total = torch._int_mm((signed + 128).to(torch.uint8), w.whole.t()) - shift
    return (total.to(x.dtype if x.dtype == torch.float64 else torch.float32) * step * w.scale.view(-1)).to(x.dtype)


def float8(x: torch.Tensor, w: Weights) -> torch.Tensor:
    """8-bit floats, the weight scaled (torchao's)."""
    return F.linear(x, w.floats.to(x.dtype) * w.scale.to(x.dtype))


FORMS: dict[str, Form] = {
    "scaled-after": scaled_after,
    "scaled-before": scaled_before,
    "int4": int4,
    "operator": operator,
    "dynamic": dynamic,
    "float8": float8,
}


class Quantised(nn.Module):
    """A linear layer in one of ``FORMS``."""

    def __init__(self, layer: nn.Linear, form: Form) -> None:
        super().__init__()
        self.weights, self.bias, self.form = Weights.of(layer.weight), layer.bias, form

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.form(x.reshape(-1, x.shape[-1]), self.weights).view(*x.shape[:-1], -1)
        return found if self.bias is None else found + self.bias.to(x.dtype)


def quantise(module: nn.Module, form: Form) -> None:
    """Replace all linear layers."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Quantised(child, form))
        else:
            quantise(child, form)


def llama(m: int, width: int, layers: int) -> tuple[nn.Module, torch.Tensor]:
    config = hf.LlamaConfig(
        hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers, num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2, vocab_size=WORDS, use_cache=False,
    )  # fmt: skip
    return hf.LlamaForCausalLM(config), tokens(m)


def bert(m: int, width: int, layers: int) -> tuple[nn.Module, torch.Tensor]:
    config = hf.BertConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=HEADS,
        vocab_size=WORDS,
    )  # fmt: skip
    return hf.BertModel(config), tokens(m)


def vit(m: int, width: int, layers: int) -> tuple[nn.Module, torch.Tensor]:
    """Pictures of 65 rows each."""
    config = hf.ViTConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=HEADS,
        image_size=128, patch_size=16,
    )  # fmt: skip
    return hf.ViTModel(config), torch.randn(-(-m // 65), 3, 128, 128)


def tokens(m: int) -> torch.Tensor:
    return torch.randint(3, WORDS, (m, 1) if m <= 4 else (1, m))


MODELS = {"llama": llama, "bert": bert, "vit": vit}

Calls = tuple[Callable[..., torch.Tensor], torch.Tensor, torch.Tensor, int]
"""A function, its input, the exact result of its first layer or of the model, and layers that a time is divided by."""


def layers_of(name: str, m: int, given: argparse.Namespace) -> Calls:
    """Layers of one form, one after another."""
    dtype = getattr(torch, given.dtype)
    layers = [Weights.random(given.n, given.k, dtype) for _ in range(given.layers)]
    x, form = torch.randn(m, given.k).to(dtype), FORMS[name]

    def function(x: torch.Tensor) -> list[torch.Tensor]:
        return [form(x, weights) for weights in layers]

    return function, x, form(x.double(), layers[0]), given.layers


def model_of(kind: str, name: str, m: int, given: argparse.Namespace) -> Calls:
    """A model whose linear layers have one form."""
    dtype = getattr(torch, given.dtype)
    model, x = MODELS[kind](m, given.width, given.layers)
    model = model.eval().to(dtype)
    quantise(model, FORMS[name])
    x = x.to(dtype) if x.is_floating_point() else x
    wide = copy.deepcopy(model).double()
    exact = wide(x.double() if x.is_floating_point() else x)[0]
    return lambda x: model(x)[0], x, exact, 1


@torch.no_grad()
def line(kind: str, name: str, m: int, given: argparse.Namespace) -> str:
    """One row of the table."""
    torch.manual_seed(0)
    function, x, exact, layers = model_of(kind, name, m, given) if kind else layers_of(name, m, given)
    torch._dynamo.reset()
    ways: dict[str, Any] = {"inductor": {}, "torchport": {"options": {"fallback": "error"}}}
    calls = [torch.compile(function, backend=backend, dynamic=False, **way) for backend, way in ways.items()]
    results = [call(x) for call in calls]
    firsts = [result[0] if isinstance(result, list) else result for result in results]
    inductor, torchport = ((first.double() - exact).abs().max().item() for first in firsts)
    best = [float("inf")] * len(calls)
    for _ in range(given.rounds):
        for number, call in enumerate(calls):
            started = time.process_time()
            call(x)
            best[number] = min(best[number], (time.process_time() - started) / layers * 1e6)
    error = f"{torchport / inductor:.2f}" if inductor else "exact" if torchport == 0 else f"{torchport:.1e}, exact"
    cells = [kind or "layers", name, str(m), *(f"{one:.0f}" for one in best), f"{best[0] / best[1]:.2f}", error]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--n", type=int, default=1024)
    parser.add_argument("--k", type=int, default=1024)
    parser.add_argument("--models", nargs="+", default=[], choices=list(MODELS))
    parser.add_argument("--width", type=int, default=512, help="of models")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    size = f"width {given.width}" if given.models else f"{given.n} x {given.k}"
    print(f"{host_info().cpu}, {host_info().arch}, {given.threads} thread(s), {size}, {given.dtype}\n")
    print("| of | form | rows | Inductor us | torchport us | ratio | error |\n|---|---|---|---|---|---|---|")
    for kind in given.models or [""]:
        for form in given.forms:
            for m in given.rows:
                print(line(kind, form, m, given), flush=True)


if __name__ == "__main__":
    main()
