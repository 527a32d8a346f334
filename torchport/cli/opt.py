"""``torchport opt``: runs passes on IR from a file, for tests of passes and replays of dumps."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torchport.cli.console import standard_output
from torchport.cli.passlist import make_pass, parse
from torchport.errors import CompilationError, OptionError
from torchport.pipeline import Pass, Pipeline, format_pass
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["list_passes", "opt", "read_module"]

# Triton prints `tt.func` bare; upstream's generic form quotes operation names.
_PRETTY_TTIR = re.compile(r"^\s*tt\.func\b", re.MULTILINE)

# Source locations in Triton's dumps: `loc("name"(#loc3))` behind operations and arguments, `#loc3 = loc(...)` lines.
# They are dropped, as the importer reads TTIR without them. MLIR prints at most two levels of parentheses.
_STRING = r'"(?:[^"\\]|\\.)*"'
_LOCATION = re.compile(rf"^#loc\d* = .*$| loc\((?:{_STRING}|[^()\"]|\((?:{_STRING}|[^()\"])*\))*\)", re.MULTILINE)


def opt(
    file: str,
    *,
    passes: str | None,
    after: str | None,
    until: str | None,
    output: Path | None,
    target: str,
    print_after_all: bool,
) -> None:
    """Import ``file``, run ``passes`` (None: the target's pipeline) after ``after`` up to ``until``; print the IR.

    Raises OptionError for an unknown pass or option, CompilationError for IR that does not parse or verify and for a
    pass that breaks it, OSError if a file cannot be read or written.
    """
    selected = _part(_pipeline(target) if passes is None else _passes(passes), after, until)
    text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8", errors="replace")
    names = {item.name for item in selected}
    module = read_module(
        text, file, keep_barriers="distribute" in names, keep_pointees=not {"algebra", "promote"}.isdisjoint(names)
    )

    def show(name: str, module: Any) -> None:
        print(f"// ----- after {name} -----\n{module}", file=sys.stderr)

    from torchport_passes.ir.dialects.verify import verify

    Pipeline(selected, show if print_after_all else None, verify).run(module, kernel=file)
    if output is None:
        print(module)
    else:
        output.write_text(f"{module}\n")


def read_module(text: str, name: str, *, keep_barriers: bool = False, keep_pointees: bool = False) -> Any:
    """Parse and verify Triton's pretty syntax or upstream MLIR (unregistered dialects allowed).

    ``keep_barriers``, ``keep_pointees``: as ``torchport_passes.frontend.importer.import_ttir``.
    """
    from mlir import ir

    if _PRETTY_TTIR.search(text):
        from torchport_passes.frontend.importer import import_ttir

        text = _LOCATION.sub("", text)
        module = import_ttir(text, keep_barriers=keep_barriers, keep_pointees=keep_pointees)
    else:
        context = ir.Context()
        context.allow_unregistered_dialects = True
        try:
            module = ir.Module.parse(text, context)
        except ir.MLIRError as error:
            raise CompilationError(f"{name} is not valid MLIR: {error}", stage="parse") from error
    try:
        module.operation.verify()
    except ir.MLIRError as error:
        raise CompilationError(f"{name} does not verify: {error}", stage="import") from error
    return module


def list_passes(target: str) -> None:
    """Print each pass with its options and the first line of its docstring, and the target's pipeline if it has one."""
    from rich.markup import escape
    from rich.table import Table
    from torchport_passes import registry

    table = Table("pass", "what it does", box=None)
    for name in registry.names():
        kind = registry.load(name)
        table.add_row(escape(format_pass(kind())), escape((kind.__doc__ or "").strip().split("\n")[0]))
    console = standard_output()
    console.print(table)
    if pipeline := _compiler_passes(target):
        console.print(f"\nThe pipeline of {target}:")
        print(",".join(map(format_pass, pipeline)))


def _pipeline(target: str) -> list[Pass]:
    passes = _compiler_passes(target)
    if not passes:
        raise OptionError(f"target {target!r} has no pipeline of torchport's passes; name passes with -p")
    return passes


def _compiler_passes(target: str) -> list[Pass]:
    parsed = Target.parse(target)
    return list(backend_for(parsed).compiler(parsed).passes())


def _passes(text: str) -> list[Pass]:
    """The passes in a list, each torchport's or, if torchport has none of that name, upstream MLIR's."""
    from torchport_passes import registry

    own = registry.names()
    return [
        make_pass(registry.load(name), options) if name in own else _upstream(name, options, own)
        for name, options in parse(text)
    ]


def _upstream(name_: str, options: dict[str, str], own: list[str]) -> Pass:
    """An upstream MLIR pass by its command-line name. Raises OptionError if there is none."""
    from mlir.ir import Context
    from mlir.passmanager import PassManager

    spelled = " ".join(f"{key.replace('_', '-')}={value}" for key, value in options.items())
    pipeline = f"builtin.module({name_}{{{spelled}}})" if spelled else f"builtin.module({name_})"

    @dataclass(frozen=True)
    class Upstream:
        name: ClassVar[str] = name_

        def apply(self, module: Any) -> None:
            PassManager.parse(pipeline, module.context).run(module.operation)

    try:
        PassManager.parse(pipeline, Context())
    except ValueError as error:
        raise OptionError(
            f"unknown pass {name_!r}, or an option it does not have; torchport's passes are: {', '.join(own)}; "
            "the names and options of upstream MLIR's module passes work too"
        ) from error
    return Upstream()


def _part(passes: list[Pass], after: str | None, until: str | None) -> list[Pass]:
    """The passes after ``after`` (None: from the first), up to and including ``until`` (None: to the last)."""
    names = [item.name for item in passes]
    for option, name in (("--after", after), ("--until", until)):
        if name is not None and name not in names:
            raise OptionError(f"{option} {name!r} is not one of the passes: {', '.join(names) or 'none'}")
    start = 0 if after is None else names.index(after) + 1
    return passes[start : None if until is None else names.index(until) + 1]
