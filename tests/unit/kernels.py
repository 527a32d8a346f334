"""Hand-written kernels in LLVM IR that follow the kernel ABI of docs/architecture.md."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from torchport_cpu import codegen
from torchport_cpu.host import host_info

from torchport.runtime.launcher import Launcher

BLOCK = 64

# out[i] = x[i] + y[i]; program p does the elements [64 p, 64 p + 64) below n.
VECTOR_ADD = """
define void @vector_add(ptr %args, ptr %grid, i64 %begin, i64 %end) {
entry:
  %x = load ptr, ptr %args
  %ys = getelementptr i64, ptr %args, i64 1
  %y = load ptr, ptr %ys
  %os = getelementptr i64, ptr %args, i64 2
  %out = load ptr, ptr %os
  %ns = getelementptr i64, ptr %args, i64 3
  %n32 = load i32, ptr %ns
  %n = sext i32 %n32 to i64
  %first = mul i64 %begin, 64
  %beyond = mul i64 %end, 64
  %short = icmp slt i64 %n, %beyond
  %last = select i1 %short, i64 %n, i64 %beyond
  br label %test
test:
  %i = phi i64 [ %first, %entry ], [ %next, %body ]
  %more = icmp slt i64 %i, %last
  br i1 %more, label %body, label %done
body:
  %px = getelementptr float, ptr %x, i64 %i
  %py = getelementptr float, ptr %y, i64 %i
  %po = getelementptr float, ptr %out, i64 %i
  %vx = load float, ptr %px
  %vy = load float, ptr %py
  %sum = fadd float %vx, %vy
  store float %sum, ptr %po
  %next = add i64 %i, 1
  br label %test
done:
  ret void
}
"""

# Program p stores p + 1 in out[p], and fails at program args[1].
ASSERTING = """
@message = private constant [26 x i8] c"index out of bounds: tmp4\\00"
declare void @torchport_assert_fail(ptr)
define void @asserting(ptr %args, ptr %grid, i64 %begin, i64 %end) {
entry:
  %out = load ptr, ptr %args
  %bs = getelementptr i64, ptr %args, i64 1
  %bad = load i64, ptr %bs
  br label %test
test:
  %i = phi i64 [ %begin, %entry ], [ %next, %store ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %done
body:
  %wrong = icmp sge i64 %i, %bad
  br i1 %wrong, label %fail, label %store
fail:
  call void @torchport_assert_fail(ptr @message)
  unreachable
store:
  %po = getelementptr i64, ptr %out, i64 %i
  %next = add i64 %i, 1
  store i64 %next, ptr %po
  br label %test
done:
  ret void
}
"""

# Writes begin, end and the grid of every call to out[5 * begin ...].
CHUNKS = """
define void @chunks(ptr %args, ptr %grid, i64 %begin, i64 %end) {
  %out = load ptr, ptr %args
  %at = mul i64 %begin, 5
  %p0 = getelementptr i64, ptr %out, i64 %at
  store i64 %begin, ptr %p0
  %p1 = getelementptr i64, ptr %p0, i64 1
  store i64 %end, ptr %p1
  %g = load <3 x i32>, ptr %grid, align 4
  %w = sext <3 x i32> %g to <3 x i64>
  %p2 = getelementptr i64, ptr %p0, i64 2
  store <3 x i64> %w, ptr %p2, align 8
  ret void
}
"""

# Copies the first args[0] slots after the first to where slot 0 points: what the launcher stored.
SLOTS = """
define void @slots(ptr %args, ptr %grid, i64 %begin, i64 %end) {
  %out = load ptr, ptr %args
  %ns = getelementptr i64, ptr %args, i64 1
  %n = load i64, ptr %ns
  %bytes = mul i64 %n, 8
  %from = getelementptr i64, ptr %args, i64 2
  call void @llvm.memcpy.p0.p0.i64(ptr %out, ptr %from, i64 %bytes, i1 false)
  ret void
}
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
"""

# Program p counts to args[1], a nanosecond a step or so, and stores p + 1 in out[p].
COUNTING = """
define void @counting(ptr %args, ptr %grid, i64 %begin, i64 %end) {
entry:
  %out = load ptr, ptr %args
  %ns = getelementptr i64, ptr %args, i64 1
  %n = load i64, ptr %ns
  %count = alloca i64
  br label %test
test:
  %i = phi i64 [ %begin, %entry ], [ %next, %store ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %reset, label %done
reset:
  store volatile i64 0, ptr %count
  br label %step
step:
  %old = load volatile i64, ptr %count
  %new = add i64 %old, 1
  store volatile i64 %new, ptr %count
  %enough = icmp sge i64 %new, %n
  br i1 %enough, label %store, label %step
store:
  %po = getelementptr i64, ptr %out, i64 %i
  %next = add i64 %i, 1
  store i64 %next, ptr %po
  br label %test
done:
  ret void
}
"""

SOURCES = {"vector_add": VECTOR_ADD, "asserting": ASSERTING, "chunks": CHUNKS, "slots": SLOTS, "counting": COUNTING}


@functools.cache
def loaded(name: str) -> codegen.LoadedKernel:
    """The kernel ``name``, compiled and loaded."""
    image, imports = codegen.emit_object(SOURCES[name], host_info())
    return codegen.load(image, name, imports)


class Kernel:
    """A kernel and its launcher: ``kernel(*args, grid=...)``."""

    def __init__(
        self,
        name: str,
        signature: Sequence[str],
        *,
        positions: Sequence[int | tuple[int, ...]] | None = None,
        cost: float = 1.0,
        serial: bool = False,
    ) -> None:
        self.code = loaded(name)
        where = list(range(len(signature)) if positions is None else positions)
        self.launcher = Launcher(name, list(signature), where, cost, serial)

    def __call__(self, *args: object, grid: tuple[int, int, int] = (1, 1, 1), hooks: tuple = (None, None)) -> None:
        self.launcher(*grid, 0, self.code.address, None, "metadata", *hooks, *args)
