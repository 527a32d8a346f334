"""``torchport demo``: compiles a transformer, times it against eager and checks it against float64."""

from __future__ import annotations

import copy
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchport.cli.console import standard_output
from torchport.errors import TorchportError
from torchport.report import counted
from torchport.runtime import events

if TYPE_CHECKING:
    import torch
    from rich.console import Console

__all__ = ["Result", "demo", "measure"]

VOCABULARY = 8192
# Smaller errors are rounding noise of float32: 2**-24 a step, a few dozen steps deep.
FLOOR = 2e-6


@dataclass(frozen=True)
class Result:
    """The measurements. Errors are the largest absolute difference from float64, divided by float64's largest value."""

    compile_seconds: float
    eager_seconds: float
    compiled_seconds: float
    eager_error: float
    compiled_error: float
    events: Sequence[events.Event]

    @property
    def speedup(self) -> float:
        """Eager's time divided by torchport's."""
        return self.eager_seconds / self.compiled_seconds

    @property
    def accurate(self) -> bool:
        """Whether the error is at most twice eager's, or below FLOOR."""
        return self.compiled_error <= max(2 * self.eager_error, FLOOR)


def demo(*, layers: int, hidden: int, batch: int, sequence: int, runs: int) -> int:
    """Build, compile and measure a model, and print the results. Returns 1 if the result is not accurate, else 0."""
    console = standard_output()
    with only_own_warnings():
        return _demo(console, layers, hidden, batch, sequence, runs)


@contextmanager
def only_own_warnings() -> Iterator[None]:
    """Hide what PyTorch and transformers warn of: nobody who runs a demo can mend it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module="torchport")
        yield


def _demo(console: Console, layers: int, hidden: int, batch: int, sequence: int, runs: int) -> int:
    name, model, inputs = transformer(layers, hidden, batch, sequence)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    console.print(
        f"{name}: {counted(layers, 'layer')}, hidden size {hidden}, {size:.1f} M parameters, random weights; "
        f"input {batch} x {sequence} tokens, float32",
        highlight=False,
    )
    with console.status('compiling with torch.compile(model, backend="torchport") and measuring'):
        result = measure(model, inputs, runs)
    _print(console, result, runs)
    if not result.accurate:
        console.print("The result is less accurate than allowed: please report this.", style="red")
    return 0 if result.accurate else 1


def transformer(layers: int, hidden: int, batch: int, sequence: int) -> tuple[str, torch.nn.Module, torch.Tensor]:
    """A BERT encoder from ``transformers`` (torch's encoder if that is not installed) and its input tokens."""
    import torch

    if hidden % 64:
        raise TorchportError(f"--hidden must be a multiple of 64 (the size of an attention head), not {hidden}")
    torch.manual_seed(0)
    inputs = torch.randint(0, VOCABULARY, (batch, sequence))
    model: torch.nn.Module
    try:
        from transformers import BertConfig, BertModel
    except ImportError:
        block = torch.nn.TransformerEncoderLayer(hidden, hidden // 64, 4 * hidden, activation="gelu", batch_first=True)
        encoder = torch.nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        model = torch.nn.Sequential(torch.nn.Embedding(VOCABULARY, hidden), encoder)
        return "torch.nn.TransformerEncoder (transformers is not installed)", model.eval(), inputs
    settings = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
        max_position_embeddings=max(512, sequence),
    )
    model = BertModel(settings, add_pooling_layer=False)
    return "BERT (transformers)", model.eval(), inputs


def measure(model: torch.nn.Module, inputs: torch.Tensor, runs: int) -> Result:
    """Compile ``model``, time it and eager ``runs`` times in turn, and compare both with float64."""
    import torch

    with torch.no_grad(), events.capture() as happened:
        compiled = torch.compile(model, backend="torchport")
        start = time.perf_counter()
        output = _tensor(compiled(inputs))
        compile_seconds = time.perf_counter() - start
        reference = _tensor(copy.deepcopy(model).double()(inputs))
        times: dict[str, list[float]] = {"eager": [], "compiled": []}
        _timed(model, inputs)
        for _ in range(runs):
            times["eager"].append(_timed(model, inputs))
            times["compiled"].append(_timed(compiled, inputs))
        eager_error, compiled_error = (_error(out, reference) for out in (_tensor(model(inputs)), output))
    return Result(
        compile_seconds,
        statistics.median(times["eager"]),
        statistics.median(times["compiled"]),
        eager_error,
        compiled_error,
        tuple(happened),
    )


def _tensor(output: Any) -> torch.Tensor:
    tensor: torch.Tensor = output if hasattr(output, "dtype") else output.last_hidden_state
    return tensor


def _timed(function: Callable[..., Any], inputs: torch.Tensor) -> float:
    start = time.perf_counter()
    function(inputs)
    return time.perf_counter() - start


def _error(output: torch.Tensor, reference: torch.Tensor) -> float:
    return float((output.double() - reference).abs().max() / reference.abs().max())


def _print(console: Any, result: Result, runs: int) -> None:
    from rich.table import Table

    kernels: dict[str, list[events.Kernel]] = {}
    for event in result.events:
        if isinstance(event, events.Kernel):
            kernels.setdefault(event.name, []).append(event)
    table = Table("kernel", "made", "ms", title=counted(len(kernels), "kernel"))
    table.columns[2].justify = "right"
    for name, group in kernels.items():
        how = "loaded from the cache" if all(kernel.cached for kernel in group) else "compiled"
        table.add_row(name, how, f"{sum(kernel.seconds for kernel in group) * 1e3:.0f}")
    console.print(table)
    summary = Table("", "eager", "torchport", title=f"median of {counted(runs, 'run')}, interleaved")
    summary.columns[1].justify = summary.columns[2].justify = "right"
    summary.add_row("first call (compiles)", "", f"{result.compile_seconds:.1f} s")
    eager, compiled = result.eager_seconds * 1e3, result.compiled_seconds * 1e3
    summary.add_row("one run", f"{eager:.2f} ms", f"{compiled:.2f} ms ({result.speedup:.2f}x)")
    summary.add_row("error against float64", f"{result.eager_error:.1e}", f"{result.compiled_error:.1e}")
    console.print(summary)
    for event in result.events:
        if isinstance(event, events.Fallback | events.GraphBreak):
            console.print(str(event), markup=False, highlight=False, style="yellow")
