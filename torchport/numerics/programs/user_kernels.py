"""The Triton kernels of the user's in a run: their functions as text, and the constants they were compiled with."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["UserKernel", "user_kernel", "user_kernels"]

_MARK = "user_autotune"
_MOST = 1 << 20
"""Characters of a source that is read."""


@dataclass(frozen=True)
class UserKernel:
    """A Triton kernel of the user's.

    function: its name
    text: its function and those that it calls, as written
    form: the same without comments, blank lines, documentation and its own name: equal for equal functions
    constants: compile-time constants, those of its configuration included
    """

    function: str
    text: str
    form: str
    constants: Mapping[str, Any]


def user_kernels(kernels: Mapping[str, Mapping[str, Any]]) -> list[UserKernel]:
    """The user's kernels among those of a run, each text and each set of constants once."""
    found: dict[tuple[str, str, str], UserKernel] = {}
    for described in kernels.values():
        kernel = user_kernel(described)
        if kernel is not None:
            found.setdefault((kernel.function, kernel.form, repr(sorted(kernel.constants.items()))), kernel)
    return [found[key] for key in sorted(found)]


def user_kernel(described: Mapping[str, Any]) -> UserKernel | None:
    """The user's kernel that a run describes; None for one that Inductor or torchport wrote."""
    source, function = described["source"], described["function"]
    if _MARK not in source or len(source) > _MOST:
        return None
    try:
        return _read(source, function)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # a run folder's text need not be Python


def _read(source: str, function: str) -> UserKernel | None:
    module = ast.parse(source)
    own = next((node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == function), None)
    if own is None or not any(_MARK in ast.dump(one) for one in own.decorator_list):
        return None
    constants = {**dict(_constants(own)), **_configuration(source)}
    lines = source.splitlines()
    texts, forms = [], []
    for node in module.body:
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.Expr)):
            continue  # generated code calls a function that sets the driver
        texts += lines[node.lineno - 1 : node.end_lineno]
        forms.append(ast.dump(_bare(node, function)))
    return UserKernel(function, "\n".join(texts), "\n".join(forms), constants)


def _bare(node: ast.stmt, function: str) -> ast.stmt:
    if isinstance(node, ast.FunctionDef):
        node.decorator_list = []
        if node.name == function:
            node.name = "kernel"
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(node.body) > 1:
            node.body = node.body[1:]
    return node


def _constants(function: ast.FunctionDef) -> Iterator[tuple[str, Any]]:
    """The entry ``constants`` of the decorator's metadata."""
    for decorator in function.decorator_list:
        for node in ast.walk(decorator):
            if not isinstance(node, ast.Dict):
                continue
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "constants":
                    yield from _literal(value).items()


def _configuration(source: str) -> dict[str, Any]:
    """What ``torchport.triton.source.in_configuration`` put before a source."""
    _, found, text = source.partition("\n")[0].partition("# torchport configuration: ")
    try:
        value = json.loads(text) if found else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _literal(node: ast.expr) -> dict[str, Any]:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return {}
    return {str(name): one for name, one in value.items()} if isinstance(value, dict) else {}
