"""What a kernel needs of a chip, read from its source, and which limits it exceeds."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from torchport.capabilities import Capabilities
from torchport.plugin import Resources

__all__ = ["Demands", "demands", "exceeded", "promotions"]

# The names of types in capabilities, by Triton's names in signatures (i64, fp32) and by tl's names in source.
_SIGNATURE = {"i1": "int1", "u1": "int1"} | {f"{s}{n}": f"int{n}" for s in "iu" for n in (8, 16, 32, 64)}
_SOURCE = (
    {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "float64": "fp64", "int1": "int1"}
    | {f"{s}int{n}": f"int{n}" for s in ("", "u") for n in (8, 16, 32, 64)}
    | {name: name for name in ("float8e4nv", "float8e5", "float8e4b8", "float8e5b16", "float8e4b15")}
)
_FP8 = re.compile(r"^(?:float8|fp8)(e.+)$")
_BLOCK = re.compile(r"^R\d*_?BLOCK$")


@dataclass(frozen=True)
class Demands:
    """What a kernel needs of a chip.

    dtypes: types that are loaded, stored or named.
    atomics: types of atomic operations.
    precisions: precisions that ``tl.dot`` names.
    reduced: elements of a reduction that the source holds whole; 1 if there is none.
    """

    dtypes: frozenset[str]
    atomics: frozenset[str]
    precisions: frozenset[str]
    reduced: int


def demands(source: str, function: str, types: Mapping[str, str]) -> Demands:
    """The demands of ``function`` in ``source``. ``types``: the Triton type of each argument."""
    signature = {name: _named(type_) for name, type_ in types.items() if type_ != "constexpr"}
    dtypes = set(signature.values())
    atomics: set[str] = set()
    precisions: set[str] = set()
    reduced = 1
    tree = ast.parse(source)
    body = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function), tree)
    for node in ast.walk(body):
        match node:
            case ast.Attribute(value=ast.Name(id="tl"), attr=attribute) if attribute in _SOURCE:
                dtypes.add(_fp8(_SOURCE[attribute]))
            case ast.Call(func=ast.Attribute(value=ast.Name(id="tl"), attr=called), args=args, keywords=keywords):
                if called.startswith("atomic_") and args:
                    atomics |= {signature[name] for name in _names(args[0]) if types.get(name, "").startswith("*")}
                if called == "dot":
                    precisions |= {
                        str(word.value.value)
                        for word in keywords
                        if word.arg == "input_precision" and isinstance(word.value, ast.Constant) and word.value.value
                    }
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=int(size))) if _BLOCK.match(name):
                reduced *= size
    return Demands(frozenset(dtypes), frozenset(atomics), frozenset(precisions), reduced)


def exceeded(
    wanted: Demands, able: Capabilities, blocks: Mapping[str, int], grid: tuple[int, int, int], used: Resources | None
) -> tuple[str, ...]:
    """The limits of a chip that a kernel exceeds, one sentence each. ``used``: None if it did not compile."""
    sentences = []
    block = prod(blocks.values()) * wanted.reduced
    if block > able.block_elements:
        sentences.append(f"a block of {block} elements, the target holds {able.block_elements}")
    for axis, size, most in zip("xyz", grid, able.grid, strict=True):
        if size > most:
            sentences.append(f"a grid of {size} program instances in {axis}, the target takes {most}")
    for what, needed, has in (
        ("type", wanted.dtypes, able.dtypes),
        ("atomic operations on", wanted.atomics, able.atomics),
        ("tl.dot precision", wanted.precisions, able.dot_precisions),
    ):
        sentences += [f"{what} {name}, which the target lacks" for name in sorted(needed - has)]
    if used is not None and used.scratchpad_bytes > able.scratchpad_bytes:
        sentences.append(f"{used.scratchpad_bytes} bytes of scratchpad, the target has {able.scratchpad_bytes}")
    if used is not None and used.spill_bytes:
        sentences.append(f"{used.spill_bytes} bytes of registers spilled")
    return tuple(sentences)


def promotions(wanted: Demands, able: Capabilities) -> tuple[str, ...]:
    """The types of a kernel that a chip computes in a wider type, in words."""
    used = sorted(wanted.dtypes & set(able.promoted))
    return tuple(f"{name} arithmetic is done in {able.promoted[name]}" for name in used)


def _named(type_: str) -> str:
    bare = type_.lstrip("*")
    return _SIGNATURE.get(bare, _fp8(bare))


def _fp8(name: str) -> str:
    match = _FP8.match(name)
    return f"fp8{match[1]}" if match else name


def _names(tree: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
