"""The text around an exported kernel that runs it over a grid, with the ABI of torchport's launcher.

    void _mlir_torchport_run(const uint64_t *args, const int32_t grid[3], int64_t begin, int64_t end);

Local buffers of a program instance are taken from an arena that the next one starts anew; what does not fit is taken
from ``malloc`` and not freed, so that the arena has to be large.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["ENTRY", "SET_ARENA", "wrapped"]

ENTRY, SET_ARENA = "torchport_run", "torchport_arena"
_ASSERT = re.compile(r'cf\.assert (%[\w#]+), ("(?:[^"\\]|\\.)*")')
_DESCRIPTOR = "!llvm.struct<(ptr, ptr, i64, array<1 x i64>, array<1 x i64>)>"

_ARENA = """
  llvm.mlir.global internal @torchport_first(0 : i64) : i64
  llvm.mlir.global internal @torchport_next(0 : i64) : i64
  llvm.mlir.global internal @torchport_last(0 : i64) : i64
  llvm.func @malloc(i64) -> !llvm.ptr
  llvm.func @_mlir_torchport_arena(%first: i64, %last: i64) {
    %a = llvm.mlir.addressof @torchport_first : !llvm.ptr
    %b = llvm.mlir.addressof @torchport_last : !llvm.ptr
    llvm.store %first, %a : i64, !llvm.ptr
    llvm.store %last, %b : i64, !llvm.ptr
    llvm.return
  }
  llvm.func @_mlir_memref_to_llvm_alloc(%bytes: i64) -> !llvm.ptr {
    %next = llvm.mlir.addressof @torchport_next : !llvm.ptr
    %last = llvm.mlir.addressof @torchport_last : !llvm.ptr
    %around = llvm.mlir.constant(63 : i64) : i64
    %line = llvm.mlir.constant(-64 : i64) : i64
    %from = llvm.load %next : !llvm.ptr -> i64
    %limit = llvm.load %last : !llvm.ptr -> i64
    %more = llvm.add %bytes, %around : i64
    %whole = llvm.and %more, %line : i64
    %to = llvm.add %from, %whole : i64
    %fits = llvm.icmp "ule" %to, %limit : i64
    llvm.cond_br %fits, ^arena, ^heap
  ^arena:
    llvm.store %to, %next : i64, !llvm.ptr
    %here = llvm.inttoptr %from : i64 to !llvm.ptr
    llvm.return %here : !llvm.ptr
  ^heap:
    %there = llvm.call @malloc(%whole) : (i64) -> !llvm.ptr
    llvm.return %there : !llvm.ptr
  }
"""


def wrapped(text: str, symbol: str, arguments: Sequence[tuple[str, bool]]) -> str:
    """A module of an exported kernel and what runs it.

    ``text``: as exported for LLVM 22. ``symbol``: the kernel's name. ``arguments``: element and whether it is a
    pointer, of each.
    """
    types = re.search(rf'func\.func @(?:{re.escape(symbol)}|"{re.escape(symbol)}")\((.*?)\)[^)]*\{{\n', text)
    if types is None:
        raise ValueError(f"the module has no function {symbol}")
    parameters = [p.split(": ", 1)[1] for p in re.split(r", (?=%arg\d+: )", types.group(1))]
    asserts: list[str] = []

    def called(found: re.Match[str]) -> str:
        asserts.append(_assertion(len(asserts), found.group(2)))
        return f"func.call @torchport_assert_{len(asserts) - 1}({found.group(1)}) : (i1) -> ()"

    body = _ASSERT.sub(called, text.rstrip().removesuffix("}").removeprefix("module {\n"))
    declared = "  llvm.func @torchport_assert_fail(!llvm.ptr)\n" if asserts else ""
    return f"module {{\n{_ARENA}{declared}{''.join(asserts)}{body}{_run(symbol, parameters, arguments)}}}\n"


def _assertion(number: int, message: str) -> str:
    text = f'{message[:-1]}\\00"'
    return f"""  llvm.mlir.global internal constant @torchport_message_{number}({text}) {{addr_space = 0 : i32}}
  func.func private @torchport_assert_{number}(%holds: i1) {{
    scf.if %holds {{
    }} else {{
      %message = llvm.mlir.addressof @torchport_message_{number} : !llvm.ptr
      llvm.call @torchport_assert_fail(%message) : (!llvm.ptr) -> ()
    }}
    return
  }}
"""


def _run(symbol: str, parameters: Sequence[str], arguments: Sequence[tuple[str, bool]]) -> str:
    lines, names = [], []
    for i, (element, pointer) in enumerate(arguments):
        lines.append(f"%s{i} = llvm.getelementptr %args[{i}] : (!llvm.ptr) -> !llvm.ptr, i64")
        if not pointer:
            lines.append(f"%a{i} = llvm.load %s{i} : !llvm.ptr -> {element}")
            names.append(f"%a{i}")
            continue
        type_ = parameters[i]
        ranked = type_.replace("memref<*x", "memref<?x")
        lines += [
            f"%p{i} = llvm.load %s{i} : !llvm.ptr -> !llvm.ptr",
            f"%d{i}_0 = llvm.mlir.poison : {_DESCRIPTOR}",
            f"%d{i}_1 = llvm.insertvalue %p{i}, %d{i}_0[0] : {_DESCRIPTOR}",
            f"%d{i}_2 = llvm.insertvalue %p{i}, %d{i}_1[1] : {_DESCRIPTOR}",
            f"%d{i}_3 = llvm.insertvalue %zero, %d{i}_2[2] : {_DESCRIPTOR}",
            f"%d{i}_4 = llvm.insertvalue %most, %d{i}_3[3, 0] : {_DESCRIPTOR}",
            f"%d{i}_5 = llvm.insertvalue %one, %d{i}_4[4, 0] : {_DESCRIPTOR}",
            f"%m{i} = builtin.unrealized_conversion_cast %d{i}_5 : {_DESCRIPTOR} to {ranked}",
        ]
        if ranked != type_:
            lines.append(f"%u{i} = memref.cast %m{i} : {ranked} to {type_}")
        names.append(f"%u{i}" if ranked != type_ else f"%m{i}")
    names += ["%gx", "%gy", "%gz", "%px", "%py", "%pz"]
    text = "\n    ".join(lines)
    return f"""
  func.func @_mlir_{ENTRY}(%args: !llvm.ptr, %grid: !llvm.ptr, %begin: i64, %end: i64) {{
    %zero = llvm.mlir.constant(0 : i64) : i64
    %one = llvm.mlir.constant(1 : i64) : i64
    %most = llvm.mlir.constant({2**60} : i64) : i64
    {text}
    %y = llvm.getelementptr %grid[1] : (!llvm.ptr) -> !llvm.ptr, i32
    %z = llvm.getelementptr %grid[2] : (!llvm.ptr) -> !llvm.ptr, i32
    %gx = llvm.load %grid : !llvm.ptr -> i32
    %gy = llvm.load %y : !llvm.ptr -> i32
    %gz = llvm.load %z : !llvm.ptr -> i32
    %wx = arith.extsi %gx : i32 to i64
    %wy = arith.extsi %gy : i32 to i64
    %first = llvm.mlir.addressof @torchport_first : !llvm.ptr
    %next = llvm.mlir.addressof @torchport_next : !llvm.ptr
    scf.for %i = %begin to %end step %one : i64 {{
      %arena = llvm.load %first : !llvm.ptr -> i64
      llvm.store %arena, %next : i64, !llvm.ptr
      %ix = arith.remui %i, %wx : i64
      %row = arith.divui %i, %wx : i64
      %iy = arith.remui %row, %wy : i64
      %iz = arith.divui %row, %wy : i64
      %px = arith.trunci %ix : i64 to i32
      %py = arith.trunci %iy : i64 to i32
      %pz = arith.trunci %iz : i64 to i32
      func.call @{_symbol(symbol)}({", ".join(names)}) : ({", ".join(parameters)}) -> ()
    }}
    return
  }}
"""


def _symbol(name: str) -> str:
    return name if re.fullmatch(r"[\w.$]+", name) else f'"{name}"'
