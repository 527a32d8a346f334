"""torchport's FX passes, run after Inductor's on the graph that is about to be lowered."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import torch

from torchport.capabilities import Capabilities
from torchport.inductor.attention import take_kernels
from torchport.inductor.compat import CustomGraphPass
from torchport.inductor.host import limits, named_level
from torchport.inductor.precision.applied import apply
from torchport.inductor.precision.keys import name_nodes
from torchport.inductor.precision.plan import Plan
from torchport.inductor.scope import current
from torchport.inductor.upstream.aliasing import keep_old_values
from torchport.inductor.upstream.corrections import applies
from torchport.inductor.upstream.division import check_divisors
from torchport.inductor.upstream.kernels import write_into_views
from torchport.inductor.upstream.loops import allow_counters
from torchport.inductor.upstream.negation import negate
from torchport.inductor.upstream.overlap import scatter_in_aten
from torchport.inductor.upstream.rounding import round_shared_values
from torchport.inductor.upstream.views import check_strided

__all__ = ["GraphPasses", "Named", "make_on"]

aten = torch.ops.aten

# Not computed by a generated kernel: what reads the product from memory again gains nothing from a fused addition.
_VIEWS = frozenset(
    {
        aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.permute.default, aten.t.default,
        aten.transpose.int, aten.squeeze.dim, aten.unsqueeze.default, aten.expand.default, aten.slice.Tensor,
        aten.select.int, aten.split.Tensor, aten.split_with_sizes.default, aten.as_strided.default,
    }
)  # fmt: skip


class Named(CustomGraphPass):
    """Names the nodes and applies a plan, then runs the user's own ``post_grad_custom_post_pass`` if there is one.

    All that torchport does to graphs that Inductor generates the code for.

    precision: what is computed in higher precision. Its digest is in the tag of the scope's cache keys.
    """

    def __init__(
        self, following: Callable[[torch.fx.Graph], None] | None = None, precision: Plan | None = None
    ) -> None:
        self.following = following
        self.precision = precision

    def __call__(self, graph: torch.fx.Graph) -> None:
        self.name(graph)
        if self.following is not None:
            self.following(graph)

    def name(self, graph: torch.fx.Graph) -> None:
        """Give nodes their keys, and do what the plan says of them."""
        key = name_nodes(graph)
        if self.precision is not None and (scope := current()) is not None:
            scope.widened.append(apply(self.precision, graph, key))

    def uuid(self) -> Any:
        """What Inductor's graph cache keys on; None (no caching) when the user's pass gives none."""
        own = hashlib.sha256(inspect.getsource(inspect.getmodule(Named) or Named).encode()).hexdigest()
        if self.following is None:
            return own
        following = self.following.uuid() if isinstance(self.following, CustomGraphPass) else None
        return None if following is None else (own, following)


class GraphPasses(Named):
    """torchport's passes, for graphs that it generates the code for, then the user's.

    kernels: the operator library's kernels may stand for aten's.
    """

    def __init__(
        self,
        device: str,
        following: Callable[[torch.fx.Graph], None] | None = None,
        kernels: bool = False,
        precision: Plan | None = None,
    ) -> None:
        super().__init__(following, precision)
        self.device = device
        self.kernels = kernels

    def __call__(self, graph: torch.fx.Graph) -> None:
        if self.device == "torchport":
            move_constants(graph, self.device)
        if applies("loop-counters"):
            allow_counters(graph)
        if applies("negated-inputs"):
            negate(graph)
        if applies("overlapping-scatters"):
            scatter_in_aten(graph)
        round_shared_values(graph)
        if applies("strided-views"):
            check_strided(graph)
        if applies("written-views"):
            write_into_views(graph)
        if applies("old-values"):
            keep_old_values(graph)
        if applies("division-by-zero"):
            check_divisors(graph)
        unfuse_bias(graph, self.device)
        widen_for_each_user(graph)
        self.name(graph)
        if self.kernels:
            cpu = limits()
            take_kernels(graph, cpu, cpu is not None and _by_pairs(cpu), named_level())
        if self.following is not None:
            self.following(graph)


def _by_pairs(cpu: Capabilities) -> bool:
    """Whether attention may take products of pairs of bf16."""
    scope = current()
    return scope is not None and scope.settings.bf16_products != "exact" and cpu.bf16_pairs and cpu.fast_pairs


def move_constants(graph: torch.fx.Graph, device: str) -> None:
    """Make on the device what the graph makes on the CPU, where all its inputs and results are on the device.

    Decompositions make tensors of numbers on the CPU. Inductor moves them for the types of devices that it knows.
    """
    seen = [node for node in graph.nodes if node.op == "placeholder"]
    seen += graph.find_nodes(op="output")[0].all_input_nodes
    places = {node.meta["val"].device for node in seen if isinstance(node.meta.get("val"), torch.Tensor)}
    if len(places) != 1 or next(iter(places)).type != device:
        return
    make_on(graph, places.pop())


def make_on(graph: torch.fx.Graph, place: torch.device) -> bool:
    """Make on ``place`` what the graph makes on the CPU. Returns whether there was any."""
    made = [n for n in graph.nodes if n.op == "call_function" and n.kwargs.get("device") == torch.device("cpu")]
    for node in made:
        node.kwargs = {**node.kwargs, "device": place}
    return bool(made)


def unfuse_bias(graph: torch.fx.Graph, device: str) -> None:
    """``addmm(bias, a, b)`` becomes ``mm(a, b) + bias`` where a generated kernel reads the result.

    aten's addmm first copies the bias into every row of the result; the kernel adds it for nothing. Only f32 and f64:
    the half types' GEMM adds the bias before it rounds. f32 results change in the order of one addition.
    """
    for node in graph.find_nodes(op="call_function", target=aten.addmm.default):
        bias, a, b = node.args
        value = node.meta.get("val")
        if (
            not isinstance(value, torch.Tensor)
            or value.device.type != device
            or value.dtype not in (torch.float32, torch.float64)
            or node.kwargs.get("alpha", 1) != 1
            or node.kwargs.get("beta", 1) != 1
            or not _read_by_kernels(node)
        ):
            continue
        with graph.inserting_before(node):
            product = graph.call_function(aten.mm.default, (a, b))
            product.meta.update(node.meta)
            total = graph.call_function(aten.add.Tensor, (product, bias))
            total.meta.update(node.meta)
        node.replace_all_uses_with(total)
        graph.erase_node(node)


def widen_for_each_user(graph: torch.fx.Graph) -> None:
    """Convert a 16-bit value to f32 once for each operation that uses it so.

    Inductor stores a value with several users. Of one conversion with several users it would be the f32, in twice the
    memory.
    """
    convert = torch.ops.prims.convert_element_type.default
    for node in graph.find_nodes(op="call_function", target=convert):
        source, wide = node.args
        narrow = source.meta.get("val") if isinstance(source, torch.fx.Node) else None
        if not isinstance(narrow, torch.Tensor) or narrow.dtype.itemsize != 2 or wide != torch.float32:
            continue
        if narrow.is_floating_point() and source.op == "call_function" and _only_read(node):
            for user in list(node.users)[1:]:
                with graph.inserting_before(user):
                    user.replace_input_with(node, graph.node_copy(node))


def _only_read(node: torch.fx.Node) -> bool:
    """Whether no use of a node, through views, is an operation that might write into it."""
    for user in node.users:
        if user.op == "output":
            continue
        if not isinstance(user.target, torch._ops.OpOverload) or user.target._schema.is_mutable:
            return False
        if user.target.is_view and not _only_read(user):
            return False
    return True


def _read_by_kernels(node: torch.fx.Node) -> bool:
    """Whether every use of a node, through views, is an operation that Inductor generates code for."""
    from torchport.inductor.compat import fallbacks, lowerings

    for user in node.users:
        if user.op != "call_function":
            return False
        if user.target in _VIEWS:
            if not _read_by_kernels(user):
                return False
            continue
        pointwise = isinstance(user.target, torch._ops.OpOverload) and torch.Tag.pointwise in user.target.tags
        reduction = user.target in (aten.mean.dim, aten.var_mean.correction, aten.sum.dim_IntList, aten.amax.default)
        if not (pointwise or reduction) or user.target in fallbacks or user.target not in lowerings:
            return False
    return bool(node.users)
