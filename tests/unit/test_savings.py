"""What is saved of Inductor's and Dynamo's work is work that no result depends on, and saved for torchport only."""

from __future__ import annotations

import functools
import importlib.util
import logging
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch._dynamo import funcname_cache
from torch._dynamo.variables.higher_order_ops import LocalMapWrappedHigherOrderVariable
from torch._inductor import lowering
from torch._inductor.fx_passes import fuse_attention, joint_graph, serialized_patterns
from torch._inductor.utils import OpDtypeRule
from torch._subclasses.fake_tensor import FakeTensorMode

from torchport.compat import library_utils
from torchport.inductor.compat import (
    DtypePropagationOpsHandler,
    FxGraphCachePickler,
    KernelTemplate,
    dtype_rules,
    trace_log,
)
from torchport.inductor.flex import tracing
from torchport.inductor.savings import hashes, patterns, rules, support, templates
from torchport.inductor.savings import tracing as dynamo
from torchport.inductor.savings.state import in_force
from torchport.registering import registering

DYNAMO = "torch.distributed.tensor.experimental._func_map"


def graph(*functions: Callable[..., torch.Tensor]) -> torch.fx.GraphModule:
    made = torch.fx.Graph()
    value = made.placeholder("x")
    for function in functions:
        value = made.call_function(function, (value,))
    made.output(value)
    return torch.fx.GraphModule({}, made)


def test_every_pattern_of_attention_has_what_is_looked_for() -> None:
    """A pattern of a new torch that has not would be missed: this fails then."""
    found = 0
    for module in pkgutil.iter_modules(serialized_patterns.__path__):
        if not module.name.startswith("_sfdp"):
            continue
        text = (Path(serialized_patterns.__path__[0]) / f"{module.name}.py").read_text()
        for pattern in re.split(r"^_sfdp_\w+ = ", text, flags=re.MULTILINE)[:-1]:  # each follows its operations
            found += 1
            assert all(
                f"aten.{needed._schema.name.removeprefix('aten::')}.default" in pattern for needed in patterns.NEEDED
            )
    assert found > 40


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The devices that Inductor made its patterns of attention for."""
    made: list[tuple[str, ...]] = []
    monkeypatch.setattr(fuse_attention, "_sfdp_init", lambda *device: made.append(device))
    monkeypatch.setattr(joint_graph, "canonicalize_aten_ir_passes", lambda gm: None)
    patterns.install.__wrapped__()
    return made


def test_patterns_are_made_for_a_graph_that_may_hold_one(made: list[tuple[str, ...]]) -> None:
    with in_force():
        fuse_attention._sfdp_init("cpu")
        joint_graph.canonicalize_aten_ir_passes(graph(torch.ops.aten.exp.default))
        joint_graph.canonicalize_aten_ir_passes(graph(torch.ops.aten.bmm.default))
        assert not made
        for _ in range(2):
            joint_graph.canonicalize_aten_ir_passes(graph(torch.ops.aten.exp.default, torch.ops.aten.bmm.default))
    assert made == [("cpu",)]


def test_inductor_has_its_patterns_where_torchport_came_first(made: list[tuple[str, ...]]) -> None:
    with in_force():
        fuse_attention._sfdp_init("cpu")
    joint_graph.canonicalize_aten_ir_passes(graph())
    assert made == [("cpu",)]
    fuse_attention._sfdp_init()
    assert made == [("cpu",), ()]


def test_a_template_is_parsed_when_it_is_used() -> None:
    wrong, right = "{% if %}", "a {{ x }}"
    with templates.parsed_later():
        later = [KernelTemplate._template_from_string(text) for text in (wrong, right)]
    assert later[1].render(x=1) == "a 1" == KernelTemplate._template_from_string(right).render(x=1)
    with pytest.raises(Exception, match="Expected an expression"):
        later[0].render()
    with pytest.raises(Exception, match="Expected an expression"):
        KernelTemplate._template_from_string(wrong)


def test_rules_of_types_are_filled_in_once(monkeypatch: pytest.MonkeyPatch) -> None:
    filled: list[Any] = []
    monkeypatch.setattr(DtypePropagationOpsHandler, "__init__", filled.append)
    rules.install.__wrapped__()
    DtypePropagationOpsHandler()
    with in_force():
        DtypePropagationOpsHandler()
        assert len(filled) == 1
        monkeypatch.setitem(dtype_rules, "meant_for_this_test", OpDtypeRule(None, torch.int8))
        DtypePropagationOpsHandler()
        DtypePropagationOpsHandler()
        assert len(filled) == 2
    DtypePropagationOpsHandler()
    assert len(filled) == 3


DTYPES = sorted({one for one in vars(torch).values() if isinstance(one, torch.dtype) and "q" not in str(one)}, key=str)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_what_inductor_cannot_compute_with_is_what_it_was() -> None:
    support.install()
    with FakeTensorMode():
        tensors = [torch.empty(2, dtype=dtype, device=device) for dtype in DTYPES for device in ("cpu", "meta")]
        tensors.append(torch.empty(2, 2, layout=torch.sparse_coo))
    answers = [lowering.unsupported_input_tensor(one) for one in tensors]
    with in_force():
        assert [lowering.unsupported_input_tensor(one) for one in tensors] == answers
    assert answers.count(False) >= 10 and answers.count(True) >= 10


@contextmanager
def logged(name: str, level: int) -> Iterator[list[str]]:
    """What a logger of this level says while the context is open."""
    logger, lines = logging.getLogger(name), list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield lines
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


def test_parts_of_a_key_are_hashed_where_somebody_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FxGraphCachePickler, "debug_lines", lambda self, inp: ["part"])
    monkeypatch.setattr(trace_log, "handlers", [])
    hashes.install.__wrapped__()
    lines = functools.partial(FxGraphCachePickler.debug_lines, None, None)
    with logged("torch._inductor.codecache", logging.WARNING), in_force():
        assert lines() == []
        monkeypatch.setattr(trace_log, "handlers", [logging.NullHandler()])
        assert lines() == ["part"]
        monkeypatch.setattr(trace_log, "handlers", [])
    with logged("torch._inductor.codecache", logging.DEBUG), in_force():
        assert lines() == ["part"]
    assert lines() == ["part"]


def test_a_registered_operator_has_its_place() -> None:
    def named() -> str:
        return library_utils.get_source(1)

    read = named()
    with registering():
        known, line = named(), sys._getframe().f_lineno
    assert read.rpartition(":")[0] == known.rpartition(":")[0] == __file__
    assert int(known.rpartition(":")[2]) < line and named() == read


def module_of(path: Path) -> ModuleType:
    path.write_text("def function(x):\n    return x.sin() + 1\n")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("ours", [True, False])
def test_dynamo_reads_files_and_imports_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: bool
) -> None:
    def backend(gm: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        return gm

    dynamo.register(tracing.is_ours)
    module = module_of(tmp_path / f"traced_by_test_savings_{ours}.py")
    compiled = torch.compile(module.function, backend=tracing.backend(backend) if ours else backend)
    assert compiled(torch.zeros(2)).tolist() == [1, 1]
    assert (module.__file__ in funcname_cache.cache) != ours
    monkeypatch.delitem(sys.modules, DYNAMO, raising=False)
    translator = SimpleNamespace(output=SimpleNamespace(compiler_fn=backend))
    monkeypatch.setattr(dynamo.InstructionTranslator, "current_tx", lambda: translator)
    assert not LocalMapWrappedHigherOrderVariable.should_wrap_in_hop(len)
    assert (DYNAMO in sys.modules) != ours


def test_a_header_of_a_log_line_reads_as_ever(tmp_path: Path) -> None:
    @tracing.backend
    def backend(gm: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        return gm

    dynamo.register(tracing.is_ours)
    module = module_of(tmp_path / "logged_by_test_savings.py")
    torch._logging.set_logs(trace_call=True)
    try:
        with logged("torch._dynamo", logging.DEBUG) as lines:
            torch.compile(module.function, backend=backend)(torch.zeros(2))
    finally:
        torch._logging.set_logs()
    assert f"TRACE FX call sin from {module.__file__}:2 in function (function)" in "\n".join(lines)
