"""Python modules of the dialects that only torchport's passes see.

The MLIR bindings look for a module ``<prefix>.<dialect>`` whenever they meet an operation of a dialect, and look again
every time when there is none. ``register`` gives them one.
"""

from __future__ import annotations

__all__ = ["register"]

_registered = False


def register() -> None:
    """Let the MLIR bindings find this package's dialect modules; done once a process."""
    global _registered
    if _registered:
        return
    from mlir._mlir_libs import _mlir

    _mlir.globals.append_dialect_search_prefix(__name__)
    _registered = True
