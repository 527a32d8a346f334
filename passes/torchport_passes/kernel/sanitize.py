"""Puts a check before every memory access of a kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_passes.analysis.provenance import SourceArguments
from torchport_passes.ir.build import byte_width
from torchport_passes.ir.ops import element_type, matching, shape_of, text_attribute
from torchport_passes.ir.traits import MASKS
from torchport_passes.ir.types import Attribute, Module, Op

__all__ = ["Sanitize", "Site", "sites_of"]


@dataclass(frozen=True)
class Sanitize:
    """Put a check before every load, store and atomic.

    Takes imported TTIR. The mask of each memory operation becomes ``tp.check pointers, mask {site, access, bytes,
    roots}``: true in the lanes of the mask whose access is allowed, so that a faulty one is left out and the process
    goes on. ``site`` counts the kernel's memory operations in the order of its text; ``access`` is ``load``, ``store``
    or ``atomic``, then how (``volatile``, the atomic's kind and memory order); ``roots`` are the kernel arguments the
    addresses come from, missing where that is not known. The module gets all of these as ``tp.sites``. ``lower-checks``
    makes calls of them.

    ``confined``: an address that may come from elsewhere, which nothing could check, raises UnsupportedOperation.
    """

    name: ClassVar[str] = "sanitize"
    confined: bool = False

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            roots = SourceArguments(module)
            accesses = [(op, roots.of(op.operands[0])) for op in matching(module, MASKS.__contains__)]
            if self.confined and (free := next((op for op, arguments in accesses if not arguments), None)):
                raise UnsupportedOperation(free.name, "its address need not be in an argument's memory; see --trust")
            sites = [_check(op, site, arguments) for site, (op, arguments) in enumerate(accesses)]
            module.operation.attributes["tp.sites"] = ir.ArrayAttr.get(sites)


def _check(op: Op, site: int, roots: tuple[int, ...] | None) -> Attribute:
    """Give ``op`` a checked mask; returns the attributes of the check. The operation is made anew with the operand."""
    position = MASKS[op.name]
    operands = list(op.operands)
    pointer, mask = operands[0], operands[position : position + 1]
    shape = shape_of(pointer)
    boolean = ir.IntegerType.get_signless(1)
    value = op.results[0] if op.name == "tt.load" else operands[1]
    i64 = ir.IntegerType.get_signless(64)
    attributes = {
        "site": ir.IntegerAttr.get(i64, site),
        "access": ir.StringAttr.get(_access(op)),
        "bytes": ir.IntegerAttr.get(i64, byte_width(element_type(value.type))),
    }
    if roots is not None:
        attributes["roots"] = ir.DenseI64ArrayAttr.get(list(roots))
    point = ir.InsertionPoint(op)
    type_ = boolean if shape is None else ir.RankedTensorType.get(list(shape), boolean)
    allowed = ir.Operation.create("tp.check", [type_], [pointer, *mask], attributes, ip=point).results[0]
    operands[position : position + 1] = [allowed]
    types = [r.type for r in op.results]
    new = ir.Operation.create(op.name, types, operands, dict(op.attributes.items()), ip=point)
    for old, result in zip(op.results, new.results, strict=True):
        old.replace_all_uses_with(result)
    op.erase()
    return ir.DictAttr.get(attributes)


def _access(op: Op) -> str:
    if op.name == "tt.load":
        return "load volatile" if "volatile" in op.attributes else "load"
    if op.name == "tt.store":
        return "store"
    kind = text_attribute(op, "rmw") if op.name == "tt.atomic_rmw" else "cas"
    return f"atomic {kind} {text_attribute(op, 'sem')}"


@dataclass(frozen=True)
class Site:
    """One memory operation: its ``access`` as in ``tp.check``, the bytes of an element, the arguments it can reach."""

    access: str
    bytes: int
    roots: tuple[int, ...] | None


def sites_of(module: Module) -> list[Site]:
    """The sites that ``sanitize`` found in a module, by number; none where it did not run."""
    attributes = module.operation.attributes
    sites = ir.ArrayAttr(attributes["tp.sites"]) if "tp.sites" in attributes else ()
    return [_site(ir.DictAttr(site)) for site in sites]


def _site(check: Op) -> Site:
    roots = tuple(ir.DenseI64ArrayAttr(check["roots"])) if "roots" in check else None
    return Site(str(ir.StringAttr(check["access"]).value), int(ir.IntegerAttr(check["bytes"]).value), roots)
