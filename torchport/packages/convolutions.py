"""Convolutions in a package take every size that was asked for.

PyTorch's shape rule of a convolution asks which of aten's functions would compute it, and for 16 examples and more that
may be another one: the graph would hold for one side of 16 only. All that follows from the answer is how the
result lies in memory, which a package's program checks at each call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torchport.compat import torch_c
from torchport.inductor.shared import Switch

__all__ = ["every_size"]

_every = Switch("torchport_convolutions_of_every_size")


@_every.installed
def every_size() -> None:
    """While the context is open, in this thread, the choice of a convolution's function adds no guard."""
    stock: Callable[..., Any] = torch_c._select_conv_backend

    def select(*args: Any, **kwargs: Any) -> Any:
        given = args[0] if args else kwargs.get("input")
        shapes = getattr(getattr(given, "fake_mode", None), "shape_env", None)
        if shapes is None or not _every.is_on():
            return stock(*args, **kwargs)
        with shapes.suppress_guards():
            return stock(*args, **kwargs)

    torch_c._select_conv_backend = select
