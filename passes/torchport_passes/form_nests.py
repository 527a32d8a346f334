"""Groups tensor operations into loop nests, and decides what is recomputed and what is kept in a buffer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_passes._axis import owner_of
from torchport_passes._ops import element_type, is_tensor, numel, root_pointer, shape_of, space_of, squeezed

__all__ = ["FormNests"]

# What one more evaluation of an operation costs, in units of one contiguous vector load.
_COST = {
    "arith.divf": 6.0, "math.sqrt": 6.0, "tt.precise_sqrt": 6.0, "tt.precise_divf": 6.0, "tt.extern_elementwise": 12.0,
    "arith.remf": 20.0, "tt.atomic_rmw": 1e9, "tt.atomic_cas": 1e9, "tt.reduce": 1e9,
}  # fmt: skip
_GATHER_COST = 12.0
_KEEP_ABOVE = 2.5  # a buffer costs one store and one load

_ANCHORS = frozenset({"tt.store", "tt.reduce", "tt.atomic_rmw", "tt.atomic_cas", "tt.assert", "tt.print", "tp.write"})
_LOADS = frozenset({"tt.load", "tp.read"})
_WRITES = frozenset({"tt.store", "tt.atomic_rmw", "tt.atomic_cas", "tp.write"})


@dataclass(frozen=True)
class FormNests:
    """Wrap tensor operations into ``tp.nest`` operations, one loop nest each.

    Takes the IR that ``buffers`` leaves. Each *anchor* (store, reduction, atomic, assertion, ``tp.write``) goes to a
    nest with the anchors before it that have the same iteration space and do not feed it through a reduction. A nest
    gets copies of all the pure operations its anchors need, so that index arithmetic never crosses nests in memory; a
    value that is costly to compute again is written to a ``tp.buffer`` by the first nest that computes it. Memory order
    is kept: a load is never moved over a store with the same root pointer. Leaves no tensor outside a ``tp.nest``; a
    nest's results are the scalars its reductions end in.
    """

    name: ClassVar[str] = "form-nests"

    def apply(self, module: Any) -> None:
        with module.context, ir.Location.unknown():
            for function in module.body.operations:
                if len(function.regions[0].blocks) == 0:
                    continue
                entry = function.regions[0].blocks[0]
                for block in function.regions[0].blocks:
                    _Block(block, entry).run()


@dataclass
class _Nest:
    shape: tuple[int, ...]  # without unit dimensions
    anchors: list[Any] = field(default_factory=list)
    axis: int | None = None  # reduced dimension, counted without unit dimensions
    closure: dict[Any, None] = field(default_factory=dict)  # operations evaluated in the nest, a set in insertion order
    reads: list[Any] = field(default_factory=list)


def _address(op: Any) -> Any:
    return op.operands[1] if op.name == "tp.write" else op.operands[0]


def _root(op: Any) -> Any:
    return root_pointer(_address(op))


def _may_overlap(a: Any, b: Any) -> bool:
    """Whether memory behind two roots can be the same: kernel arguments can alias, buffers are their own."""
    if a == b:
        return True
    return not any(_is_buffer(root) for root in (a, b))


def _is_buffer(root: Any) -> bool:
    owner = owner_of(root)
    return owner is not None and owner.name == "tp.buffer"


def _same_lanes(a: Any, b: Any) -> bool:
    """Whether two memory operations touch, lane by lane, the same addresses."""
    if _address(a) != _address(b):
        return False
    if "tp.read" in (a.name, b.name) or "tp.write" in (a.name, b.name):
        shapes = [shape_of(op.results[0] if op.name == "tp.read" else op.operands[0]) or () for op in (a, b)]
        return squeezed(shapes[0]) == squeezed(shapes[1])
    return True


def _reduced_axis(op: Any) -> int:
    shape = space_of(op)
    axis = int(ir.IntegerAttr(op.attributes["axis"]).value)
    return sum(1 for s in shape[:axis] if s != 1) if shape[axis] != 1 else -1


class _Block:
    def __init__(self, block: Any, entry: Any) -> None:
        self.block = block
        self.entry = entry
        self.operations = [op.operation for op in block.operations]
        self.position = {op: i for i, op in enumerate(self.operations)}
        self.items: list[Any] = []  # _Nest or a plain operation, in execution order
        self.open: _Nest | None = None
        self.deferred: list[Any] = []  # scalar stores that wait so that nests around them can be one
        self.kept: dict[Any, Any] = {}  # tensor value -> buffer
        self.costs: dict[Any, float] = {}

    # ---- phase 1: which anchors share a nest

    def run(self) -> None:
        for op in self.operations[:-1]:
            self.visit(op)
        self.flush()
        self.items.append(self.operations[-1])
        self.settle()
        self.emit()

    def flush(self) -> None:
        self.close()
        self.items += self.deferred
        self.deferred = []

    def visit(self, op: Any) -> None:
        if self.deferred and self.ends_deferral(op):
            self.flush()
        if op.name in _ANCHORS and space_of(op):
            self.add(op)
        elif len(op.regions) > 0 and op.name not in ("tt.reduce", "tp.scan"):
            self.region(op)
        elif op.name.startswith("tp.") and op.name not in ("tp.read", "tp.buffer", "tp.check"):
            self.close()
            self.items.append(op)
        elif not any(is_tensor(v) for v in (*op.operands, *op.results)) and self.has_effect(op):
            self.scalar_effect(op)

    def ends_deferral(self, op: Any) -> bool:
        """Whether a deferred store has to happen before ``op``: something may read it, or write the same memory."""
        if op.name == "tt.store":
            return bool(space_of(op)) and any(_root(op) == _root(d) for d in self.deferred)
        return op.name in ("tt.load", "tt.atomic_rmw", "tt.atomic_cas", "tt.print") or (
            len(op.regions) > 0 and op.name != "tt.reduce"
        )

    @staticmethod
    def has_effect(op: Any) -> bool:
        return op.name in ("tt.load", "tt.store", "tt.atomic_rmw", "tt.atomic_cas", "tt.assert", "tt.print") or (
            op.name.startswith(("func.call", "cf."))
        )

    def scalar_effect(self, op: Any) -> None:
        if op.name == "tt.store":
            self.deferred.append(op)
            return
        if self.open is not None:
            reads_only = op.name in ("tt.load", "tt.assert")
            clash = op.name == "tt.load" and any(a.name in _WRITES and _root(a) == _root(op) for a in self.open.anchors)
            if not reads_only or clash or self.depends(op, self.open):
                self.close()
        self.items.append(op)

    def region(self, op: Any) -> None:
        """Control flow: tensors from outside that are costly or loaded are kept in buffers before it."""
        inside = dict.fromkeys(_inner_operations(op))  # a set in program order: buffers are made in it
        outer = []
        for inner in inside:
            for value in inner.operands:
                owner = owner_of(value)
                if owner is not None and owner not in inside and is_tensor(value) and value not in outer:
                    outer.append(value)
        for value in outer:
            owner = owner_of(value)
            if owner is None or owner.block != self.block or owner.name == "tp.read":
                continue
            if self.cost(value) > 0.9:
                self.keep_before(value, op, inside)
        self.close()
        for region in op.regions:
            for block in region.blocks:
                _Block(block, self.entry).run()
        self.items.append(op)

    def keep_before(self, value: Any, op: Any, inside: dict[Any, None]) -> None:
        point = ir.InsertionPoint(op)
        buffer = self.buffer(value)
        write = ir.Operation.create("tp.write", [], [value, buffer], ip=point)
        read = ir.Operation.create("tp.read", [value.type], [buffer], ip=point)
        self.position[write] = self.position[read] = self.position[op]
        for use in list(value.uses):
            user = use.owner.operation
            if user in inside:
                user.operands[use.operand_number] = read.results[0]
        self.add(write)

    def close(self) -> None:
        if self.open is not None:
            self.items.append(self.open)
            self.open = None

    def add(self, op: Any) -> None:
        shape = squeezed(space_of(op))
        axis = _reduced_axis(op) if op.name == "tt.reduce" else None
        nest = self.open
        if nest is not None and (
            nest.shape != shape
            or (axis is not None and nest.axis not in (None, axis))
            or self.depends(op, nest)
            or self.clashes(op, nest)
        ):
            self.close()
            nest = None
        if nest is None:
            nest = self.open = _Nest(shape)
        nest.anchors.append(op)
        if axis is not None:
            nest.axis = axis
        nest.reads.extend(self.loads(op))

    def depends(self, op: Any, nest: _Nest) -> bool:
        """Whether ``op`` needs a result of one of the nest's reductions or atomics."""
        results = {a for a in nest.anchors if len(a.results) > 0}
        return bool(results) and any(o in results for o in self.slice(op))

    def slice(self, op: Any) -> dict[Any, None]:
        """Everything in this block that ``op`` is computed from, a set in a fixed order."""
        found: dict[Any, None] = {}
        work = [op]
        while work:
            current = work.pop()
            operands = list(current.operands)
            if len(current.regions) > 0 and current.name not in ("tt.reduce",):
                operands += [v for o in _inner_operations(current) for v in o.operands]
            for value in operands:
                owner = owner_of(value)
                if owner is not None and owner not in found:
                    found[owner] = None
                    if owner.block == self.block:
                        work.append(owner)
        return found

    def loads(self, op: Any) -> list[Any]:
        return [o for o in self.slice(op) if o.name in _LOADS and is_tensor(o.results[0])]

    def clashes(self, op: Any, nest: _Nest) -> bool:
        """Whether running ``op`` chunk by chunk together with the nest would change what memory holds."""
        writes = [a for a in nest.anchors if a.name in _WRITES]
        if op.name in _WRITES:
            root = _root(op)
            if any(_root(w) == root and not _same_lanes(w, op) for w in writes):
                return True
            if any(_root(r) == root and not _same_lanes(r, op) for r in nest.reads):
                return True
        return any(_root(w) == _root(r) and not _same_lanes(w, r) for w in writes for r in self.loads(op))

    # ---- phase 2: what each nest computes, and which values are kept

    def cost(self, value: Any) -> float:
        """Cost of computing a tensor value again, down to kept values, indices and scalars."""
        op = owner_of(value)
        if op is None or not is_tensor(value) or value in self.kept:
            return 0.0
        if op in self.costs:
            return self.costs[op]
        below = sum(self.cost(v) for v in op.operands if is_tensor(v))
        own = 0.0
        if op.name == "tp.read":
            own = 1.0
        elif op.name == "tt.load":
            own = _GATHER_COST if below > 0 else 1.0
        elif op.name in _COST:
            own = _COST[op.name]
        elif op.name.startswith("math."):
            own = 12.0
        elif op.name.startswith("arith.") and str(element_type(op.results[0].type))[0] in "bf":
            own = 0.3
        self.costs[op] = below + own
        return below + own

    def settle(self) -> None:
        """Collect each nest's closure; keep values that are costly, or whose memory changes in between."""
        first: dict[Any, _Nest] = {}
        for item in list(self.items):
            if not isinstance(item, _Nest):
                continue
            work = [v for a in item.anchors for v in a.operands]
            seen: set[Any] = set()
            while work:
                value = work.pop()
                op = owner_of(value)
                if op is None or not is_tensor(value) or value in seen or value in self.kept or op in item.anchors:
                    continue
                seen.add(value)
                if self.must_keep(op, value, item, first):
                    self.keep(value, item, first)
                    continue
                item.closure[op] = None
                first.setdefault(op, item)
                work.extend(op.operands)
            for anchor in item.anchors:
                first[anchor] = item
        for item in self.items:
            if isinstance(item, _Nest):
                for anchor in [a for a in item.anchors if a.name == "tt.reduce"]:
                    self.reduction_results(anchor, item)

    def must_keep(self, op: Any, value: Any, nest: _Nest, first: dict[Any, _Nest]) -> bool:
        if op in first and op.name in _ANCHORS:
            return True
        if op.name in _LOADS and op.block == self.block and self.overwritten(op, nest):
            return True
        return op in first and first[op] is not nest and self.cost(value) > _KEEP_ABOVE

    def overwritten(self, load: Any, nest: _Nest) -> bool:
        """Whether the memory of ``load`` is written after it in program order but before ``nest`` runs."""
        root = _root(load)
        for item in self.items:
            if item is nest:
                return False
            writers = item.anchors if isinstance(item, _Nest) else _inner_operations(item)
            for op in writers:
                if op.name in _WRITES and _may_overlap(_root(op), root) and self.after(op, load):
                    return True
        return False

    def after(self, op: Any, other: Any) -> bool:
        while op not in self.position and op.block != self.block:
            op = op.parent.operation
        return self.position.get(op, -1) > self.position[other]

    def keep(self, value: Any, nest: _Nest, first: dict[Any, _Nest]) -> None:
        """Give ``value`` a buffer, written by the first nest that computes it or by its own before it is lost."""

        buffer = self.buffer(value)
        write = ir.Operation.create("tp.write", [], [value, buffer], ip=ir.InsertionPoint.after(owner_of(value)))
        op = owner_of(value)
        home = first.get(op)
        if home is not None and (self.fits(value, home) or op in home.anchors):
            home.anchors.append(write)
        else:
            home = _Nest(squeezed(shape_of(value) or ()), [write])
            self.items.insert(self.place(op, nest), home)
            self.fill(home, first)
        self.kept[value] = buffer
        self.costs.clear()

    def fill(self, nest: _Nest, first: dict[Any, _Nest]) -> None:
        """The closure of a nest made late: everything its anchors need is computed in it."""
        work = [v for a in nest.anchors for v in a.operands]
        while work:
            value = work.pop()
            op = owner_of(value)
            if op is None or not is_tensor(value) or value in self.kept or op in nest.closure:
                continue
            if op.name in _ANCHORS:
                raise UnsupportedOperation(op.name, "its result is needed before the memory it reads is overwritten")
            nest.closure[op] = None
            first[op] = nest
            work.extend(op.operands)

    def place(self, op: Any, nest: _Nest) -> int:
        """Where a nest that evaluates ``op`` can stand: before the first item that overwrites what it loads."""
        loads = [o for o in [op, *self.slice(op)] if o.name in _LOADS]
        for i, item in enumerate(self.items):
            if item is nest:
                return i
            writers = item.anchors if isinstance(item, _Nest) else _inner_operations(item)
            for write in (w for w in writers if w.name in _WRITES):
                if any(_may_overlap(_root(write), _root(load)) and self.after(write, load) for load in loads):
                    return i
        return len(self.items) - 1

    @staticmethod
    def fits(value: Any, nest: _Nest) -> bool:
        shape = shape_of(value) or ()
        return squeezed(shape) == nest.shape or any(
            len(space_of(a)) == len(shape) and all(v in (1, s) for v, s in zip(shape, space_of(a), strict=True))
            for a in nest.anchors
            if squeezed(space_of(a)) == nest.shape
        )

    def reduction_results(self, anchor: Any, nest: _Nest) -> None:
        """Tensor results that other nests use go through buffers; one-element ones leave the nest as scalars."""

        for result in anchor.results:
            if numel(shape_of(result) or ()) == 1 or result in self.kept:
                continue
            if any(True for _ in result.uses):
                buffer = self.buffer(result)
                write = ir.Operation.create("tp.write", [], [result, buffer], ip=ir.InsertionPoint.after(anchor))
                nest.anchors.append(write)
                self.kept[result] = buffer

    def buffer(self, value: Any) -> Any:
        i64 = ir.IntegerType.get_signless(64)
        attributes = {
            "count": ir.IntegerAttr.get(i64, numel(shape_of(value) or ())),
            "element": ir.TypeAttr.get(element_type(value.type)),
        }
        point = ir.InsertionPoint.at_block_begin(self.entry)
        return ir.Operation.create("tp.buffer", [ir.Type.parse("!llvm.ptr")], [], attributes, ip=point).results[0]

    # ---- phase 3: write it down

    def emit(self) -> None:
        """Put items in order at the end of the block, scalars before what needs them, and erase the rest."""
        terminator = self.operations[-1]
        placed: set[Any] = set()
        for item in self.items:
            if isinstance(item, _Nest):
                for op in [*item.closure, *item.anchors]:
                    self.place_scalars(op, terminator, placed)
                new = self.emit_nest(item, terminator)
                placed.add(new)
            else:
                self.place_scalars(item, terminator, placed)
                if item != terminator:
                    item.move_before(terminator)
                placed.add(item)
        for op in reversed([o.operation for o in self.block.operations]):
            if op not in placed and op.name != "tp.buffer":
                op.erase()

    def place_scalars(self, op: Any, terminator: Any, placed: set[Any]) -> None:
        """Move the scalar operations that ``op`` (or anything inside it) needs before the terminator, once."""
        work = [(v, False) for o in _inner_operations(op) for v in o.operands]
        while work:
            value, ready = work.pop()
            owner = value if ready else owner_of(value)
            if owner is None or owner in placed or owner.block != self.block:
                continue
            if owner.name == "tp.buffer" or any(is_tensor(r) for r in owner.results):
                continue
            if ready:
                owner.move_before(terminator)
                placed.add(owner)
            else:
                work.append((owner, True))
                work.extend((v, False) for v in owner.operands)

    def emit_nest(self, nest: _Nest, terminator: Any) -> Any:
        scalars = []  # (value that leaves the nest, the reduction's result it is)
        for anchor in nest.anchors:
            for result in anchor.results:
                if not is_tensor(result) and any(True for _ in result.uses):
                    scalars.append((result, result))
                elif numel(shape_of(result) or ()) == 1:
                    readers = [u.owner.operation for u in result.uses if u.owner.operation.name == "tt.unsplat"]
                    scalars += [(r.results[0], result) for r in readers]
        i64 = ir.IntegerType.get_signless(64)
        attributes = {"shape": ir.DenseI64ArrayAttr.get(list(nest.shape))}
        if nest.axis is not None:
            attributes["axis"] = ir.IntegerAttr.get(i64, nest.axis)
        op = ir.Operation.create(
            "tp.nest", [value.type for value, _ in scalars], [], attributes, regions=1, ip=ir.InsertionPoint(terminator)
        )
        body = op.regions[0].blocks.append()
        mapping: dict[Any, Any] = {}
        with ir.InsertionPoint(body):
            members = sorted([*nest.closure, *nest.anchors], key=self.order)
            for value, buffer in self.kept.items():
                if any(value in list(m.operands) for m in members) and owner_of(value) not in members:
                    mapping[value] = ir.Operation.create("tp.read", [value.type], [buffer]).results[0]
            for member in members:
                clone = member.clone()
                for i, operand in enumerate(clone.operands):
                    if operand in mapping:
                        clone.operands[i] = mapping[operand]
                for old, new in zip(member.results, clone.results, strict=True):
                    mapping[old] = new
            ir.Operation.create("tp.yield", [], [mapping[source] for _, source in scalars])
        for (value, _), result in zip(scalars, op.results, strict=True):
            value.replace_all_uses_with(result)
        return op

    def order(self, op: Any) -> tuple[int, int, int]:
        """Program order; operations of outer blocks first, writes of kept values after what they keep."""
        if op in self.position:
            return (1, self.position[op], 0)
        if op.name == "tp.write":
            owner = owner_of(op.operands[0])
            return (1, self.position.get(owner, 0), 1)
        depth, outermost = 0, op
        while outermost.block != self.block and outermost.parent is not None and depth < 64:
            depth += 1
            outermost = outermost.parent.operation
            if outermost.name == "func.func":
                break
        return (0, _index_in_block(op) - 1_000_000 * depth, 0)


def _index_in_block(op: Any) -> int:
    for i, other in enumerate(op.block.operations):
        if other.operation == op:
            return i
    return 0


def _inner_operations(op: Any) -> list[Any]:
    found: list[Any] = []
    _walk(op, found.append)
    return found


def _walk(op: Any, visit: Any) -> None:
    visit(op)
    for region in op.regions:
        for block in region.blocks:
            for inner in block.operations:
                _walk(inner.operation, visit)
