"""What a process under test does: compile models, compare them with float64, and say what happened, as JSON."""

from __future__ import annotations

import json
import signal
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["LONG", "compile_models", "interrupted", "main"]

LONG = "a long kernel is running"


def compile_models(salt: int) -> dict[str, Any]:
    """Compile four models, compare them with float64. ``salt``: a constant in them, so that their kernels are new."""
    import torch

    from torchport.runtime import events

    def pointwise(x: Any) -> Any:
        return torch.relu(x) * (2 + salt) + x.abs().sqrt()

    def softmax(x: Any) -> Any:
        return torch.softmax(x / (3 + salt), -1)

    def norm(x: Any) -> Any:
        return torch.nn.functional.layer_norm(x, x.shape[-1:]) + salt

    def column_sums(x: Any) -> Any:
        return (x * x + salt).sum(0)

    x = (torch.arange(200 * 96) * 37 % 101).reshape(200, 96) / 50.0 - 1
    wrong = 0
    with events.capture() as seen, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for model in (pointwise, softmax, norm, column_sums):
            torch._dynamo.reset()
            found, exact = torch.compile(model, backend="torchport")(x), model(x.double())
            wrong += not torch.allclose(found.double(), exact, rtol=1e-5, atol=1e-5)
    kernels = [event for event in seen if isinstance(event, events.Kernel)]
    return {
        "wrong": wrong,
        "fallbacks": sum(isinstance(event, events.Fallback) for event in seen),
        "kernels": len(kernels),
        "cached": sum(event.cached for event in kernels),
        "warnings": [str(one.message) for one in caught if "torchport" in str(one.message)],
    }


def interrupted(salt: int) -> dict[str, Any]:
    """Run a kernel of a minute until Ctrl-C, then a short launch; says when the exception came."""
    import torch

    from reliability_cases.long_kernel import count

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
    programs, steps = 4096, 10**7
    out = torch.zeros(programs)
    count[(1,)](out, steps)
    print(LONG, flush=True)
    came = 0.0
    try:
        count[(programs,)](out, steps)
    except KeyboardInterrupt:
        came = time.time()
    count[(programs,)](out, 3 + salt)
    return {"wrong": int(not torch.equal(out, torch.full((programs,), 3.0 + salt))), "came": came}


TASKS: Mapping[str, Callable[[int], dict[str, Any]]] = {"models": compile_models, "interrupted": interrupted}


def main(task: str, salt: str, *paths: str) -> None:
    """Run a task in this process. ``paths``: for sys.path, which ``python -I`` leaves out."""
    sys.path[:0] = paths
    print(json.dumps(TASKS[task](int(salt))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
