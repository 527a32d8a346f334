"""Source lines of FX nodes: the user's, or torch's where its own modules call each other, as in ``nn.Sequential``."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import torch
import torch.fx

__all__ = ["Source", "forward_line", "module_of", "source_of"]

Source = dict[str, Any]
"""``file``, ``line``, ``function`` and ``code`` (without indentation)."""

_COLLECTIVES = str(Path(torch.__file__).parent / "distributed")
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)\n(?P<code>[^\n]*)')


def source_of(node: torch.fx.Node) -> Source | None:
    """The line that a node comes from: the innermost frame of its stack trace outside of torch's collectives.

    Dynamo leaves frames in torch's modules out of it. Where no other is left, as nobody else called the module, the
    line is that of its ``forward``.
    """
    frames = list(_FRAME.finditer(node.meta.get("stack_trace") or ""))
    if frames:
        last = next((frame for frame in reversed(frames) if not frame["file"].startswith(_COLLECTIVES)), frames[-1])
        line, function, code = int(last["line"]), last["function"], last["code"].strip()
        return {"file": last["file"], "line": line, "function": function, "code": code}
    _, kind = module_of(node)
    found = forward_line(kind) if isinstance(kind, type) else None
    return None if found is None else dict(found)


def module_of(node: torch.fx.Node) -> tuple[str | None, Any]:
    """The path and the class of the innermost module that a node comes from; of a gradient, of its forward node."""
    modules = node.meta.get("nn_module_stack") or node.meta.get("fwd_nn_module_stack") or {}
    path, kind = list(modules.values())[-1] if modules else (None, None)
    return path, kind


@functools.lru_cache(maxsize=1024)
def forward_line(kind: type) -> Source | None:
    """Where a module's class computes: the statement that its ``forward`` consists of, else its first line."""
    forward = getattr(kind, "forward", None)
    try:
        file = inspect.getsourcefile(inspect.unwrap(forward)) if forward is not None else None
        lines, first = inspect.getsourcelines(forward) if forward is not None else ([], 0)
        (function,) = ast.parse(textwrap.dedent("".join(lines))).body
    except (OSError, TypeError, ValueError, SyntaxError):  # no source: a class of C, of a notebook, or of exec
        return None
    if file is None or not isinstance(function, ast.FunctionDef):
        return None
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    line = body[0].lineno if len(body) == 1 else function.lineno
    return {"file": file, "line": first + line - 1, "function": function.name, "code": lines[line - 1].strip()}
