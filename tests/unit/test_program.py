"""Programs: generated code becomes steps, steps become JSON and back, and run as the code does."""

from __future__ import annotations

import json
import textwrap
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from torchport.errors import ArtifactError, CompilationError, InputError
from torchport.inductor.observation.program import program_of, value_of
from torchport.program import Call, Executor, Grid, Launch, Let, Program, bound_launch
from torchport.program.operators import Refused, find
from torchport.program.values import evaluate

CODE = """
class Runner:
    def call(self, args):
        a, b, = args
        args.clear()
        a_size = a.size()
        s0 = a_size[0]
        assert_size_stride(a, (s0, 4), (4, 1), 'input')
        buf0 = empty_strided_cpu((s0, 3), (3, 1), torch.float32)
        # Topologically Sorted Source Nodes: [first], Original ATen: [aten.mm]
        extern_kernels.mm(a, reinterpret_tensor(b, (4, 3), (1, 4), 0), out=buf0)
        buf1 = buf0; del buf0  # reuse
        twice.launch(buf1, 3*s0)
        # Topologically Sorted Source Nodes: [second], Original ATen: [aten.sort]
        buf2 = torch.ops.aten.sort.stable(buf1, stable=False, dim=1, descending=False)
        del a
        buf3 = buf2[0]
        assert_size_stride(buf3, (s0, 3), (3, 1), 'torch.ops.aten.sort.default')
        return (reinterpret_tensor(buf1, (3, s0), (1, 3), 0), buf3, None, s0, )
"""


def twice(tensor: torch.Tensor, count: int) -> None:
    assert tensor.numel() == count
    tensor.mul_(2)


def read(body: str) -> Program:
    return program_of(f"def call(args):\n    a, b, = args\n{textwrap.indent(body, '    ')}\n", ())


def linked(program: Program, **constants: Any) -> Executor:
    again = Program.parse(json.dumps(program.as_json()).encode(), "it")
    assert again.as_json() == program.as_json()
    return Executor(again, {"twice": twice}, constants)


def test_code_becomes_a_program() -> None:
    program = program_of(CODE, ["twice"])
    a, b = torch.randn(5, 4), torch.randn(3, 4)
    product = (a @ b.T) * 2
    for run, inputs in ((linked(program), [a, b]), (linked(program, b=b), [a])):
        view, ordered, nothing, size = run(inputs)
        torch.testing.assert_close(view, product.T)
        torch.testing.assert_close(ordered, product.sort(1)[0])
        assert nothing is None and size == 5
    assert linked(program, b=b).inputs == ("a",)


def test_views_of_constants_are_made_once() -> None:
    seen: list[Any] = []
    program = program_of(
        "def call(args):\n    a, b = args\n    keep.launch(reinterpret_tensor(b, (2, 2), (1, 2), 0))\n    return (a, )",
        ["keep"],
    )
    run = Executor(program, {"keep": seen.append}, {"b": torch.arange(4.0)})
    run([torch.ones(1)])
    run([torch.ones(1)])
    assert seen[0] is seen[1] and seen[0].tolist() == [[0.0, 2.0], [1.0, 3.0]]


def test_results_are_tensors_of_their_own() -> None:
    """Whoever changes a result's shape changes no other result, and not that of the next call."""
    body = (
        "buf0 = reinterpret_tensor(b, (2, 2), (1, 2), 0)\nreturn (reinterpret_tensor(b, (2, 2), (1, 2), 0), buf0, b, )"
    )
    weight = torch.arange(4.0)
    run = linked(read(body), b=weight)
    for _ in range(2):
        first, second, same = run([torch.ones(1)])
        assert first.stride() == second.stride() == (1, 2) and first.data_ptr() == second.data_ptr()
        assert same is weight
        first.t_()


def test_a_value_is_computed_once_in_a_call() -> None:
    """Sizes that a graph writes again and again; what an allocation returns is new each time."""
    view, empty = "reinterpret_tensor(a, (4*s0, ), (1, ), 0)", "empty_strided_cpu((4*s0,), (1,), torch.float32)"
    launch = f"keep.launch({view}, {view}, {empty}, {empty})"
    body = f"a, = args\na_size = a.size()\ns0 = a_size[0]\n{launch}\nreturn (a, )"
    code = f"def call(args):\n{textwrap.indent(body, '    ')}"
    seen: list[Any] = []
    Executor(program_of(code, ["keep"]), {"keep": lambda *tensors: seen.extend(tensors)})([torch.ones(2, 4)])
    assert seen[0] is seen[1] and seen[2] is not seen[3]


def test_values_go_after_their_last_use() -> None:
    """The frame holds no buffer that no later step needs, under whatever name."""
    kept: list[Any] = []
    program = Program(
        ("a",),
        (
            Call("aten.add.Tensor", ["a", 1], {}, "x"),
            Launch("note", ["x", ["view", "x", ["tuple", 1], ["tuple", 1], 1]]),
            Let("y", "x"),
            Call("aten.add.Tensor", ["y", 1], {}, "z"),
            Launch("look", ["z"]),
        ),
        ("z",),
    )
    note = lambda *tensors: kept.extend(map(weakref.ref, tensors))  # noqa: E731
    look = lambda tensor: kept.append([one() for one in kept])  # noqa: E731
    Executor(program, {"note": note, "look": look})([torch.ones(2)])
    assert kept[-1] == [None, None]


@pytest.mark.parametrize(
    "body, named",
    [
        ("buf0 = torch.ops.mylib.thing.default(a)\nreturn (buf0, )", r"operator mylib\.thing\.default"),
        ("buf0 = torch.ops.aten.from_file.default(a)\nreturn (buf0, )", r"operator aten\.from_file\.default"),
        ("import os\nreturn (a, )", "import os"),
        ("buf0 = os.system('true')\nreturn (buf0, )", r"the call of os\.system"),
        ("kernel.run(a, 3, stream=stream0)\nreturn (a, )", r"the call of kernel\.run"),
        ("if a.item():\n    b = a\nreturn (b, )", r"if a\.item\(\)"),
        ("return (a.__class__, )", r"a\.__class__"),
        ("pass", "returns nothing"),
    ],
)
def test_other_code_is_an_error(body: str, named: str) -> None:
    with pytest.raises(CompilationError, match=named):
        read(body)


def test_an_error_names_the_line_of_the_model() -> None:
    body = "# Topologically Sorted Source Nodes: [first, second], Original ATen: [x]\nbuf0 = torch.ops.my.thing(a)"
    code = f"def call(args):\n    a, = args\n{textwrap.indent(body, '    ')}\n    return (buf0, )\n"
    with pytest.raises(
        CompilationError, match=r"my\.thing.*\(File 'model.py', line 7 of second for my\.thing\.default\)"
    ):
        program_of(code, (), lambda operator, nodes: f"File 'model.py', line 7 of {nodes[1]} for {operator}")


@pytest.mark.parametrize("text", ["s0 + 2*s1", "s0 // 3", "Max(1, s0)", "Mod(s0, 8)", "s0**2", "-s0", "Eq(s0, 2*s1)"])
def test_expressions_over_sizes(text: str) -> None:
    import sympy
    from torch.utils._sympy.functions import FloorDiv, Max, Mod

    symbols = {name: sympy.Symbol(name, integer=True, positive=True) for name in ("s0", "s1")}
    expression = sympy.sympify(
        text.replace("s0 // 3", "FloorDiv(s0, 3)"), locals={**symbols, "FloorDiv": FloorDiv, "Max": Max, "Mod": Mod}
    )
    for s0, s1 in ((10, 5), (7, 3)):
        value = evaluate(json.loads(json.dumps(value_of(expression))), {"s0": s0, "s1": s1})
        assert value == expression.subs({symbols["s0"]: s0, symbols["s1"]: s1})


@pytest.mark.parametrize(
    "steps, results, problem",
    [
        ((Let("x", "nothing"),), (), "'nothing' has no value"),
        ((Let("x", ["eval", "a"]),), (), "'eval', which is not known"),
        ((Let("x", ["+", 1]),), (), r"\+ has 1 operands"),
        ((Let("x", ["//", 1, 0]),), (), "cannot be computed"),
        ((Let("x", ["**", 2, 1000]),), (), "power of 1000"),
        ((Let("x", ["dtype", "save"]),), (), "'save', which torch has not"),
        ((Let("x", ["device", "cuda"]),), (), "'cuda'"),
        ((Launch("none", []),), (), "no kernel 'none'"),
        ((Call("aten.nothing.default", [], {}),), (), r"aten\.nothing\.default: .*no such operation"),
        ((Call("os.system.default", [["text", "true"]], {}),), (), "operators of os are not permitted"),
    ],
)
def test_what_cannot_run_is_refused_when_it_is_linked(steps: Any, results: Any, problem: str) -> None:
    with pytest.raises(ArtifactError, match=problem):
        Executor(Program(("a",), steps, results), {})


@pytest.mark.parametrize("name", ["aten.from_file.default", "aten.save.default", "torchport.sdpa.default", "aten.mm"])
def test_operators_that_data_may_not_name(name: str) -> None:
    with pytest.raises(Refused):
        find(name)
    assert find("aten.mm.out") is torch.ops.aten.mm.out


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda it: it.update(schema="torchport.program/9"), "schema 'torchport.program/9'"),
        (lambda it: it["steps"].append(["exec", "x"]), "none of let, launch, call, check, require"),
        (lambda it: it["steps"].append(["let", "x"]), "has 2 members, not 3"),
        (lambda it: it["steps"].append(["launch", 3, []]), "kernel is 3, not text"),
        (lambda it: it.pop("results"), "has no 'results'"),
    ],
)
def test_damaged_programs(change: Callable[[dict[str, Any]], Any], problem: str) -> None:
    data = program_of(CODE, ["twice"]).as_json()
    change(data)
    with pytest.raises(ArtifactError, match=problem):
        Program.parse(json.dumps(data).encode(), "it")


def test_conditions_on_data() -> None:
    body = "u0 = a.item()\nif not (u0 >= 0):\n    raise RuntimeError('u0 >= 0')\nbuf0 = b.size(0)\nreturn (u0 + buf0, )"
    run = linked(read(body))
    assert run([torch.tensor(2), torch.ones(3)]) == [5]
    with pytest.raises(InputError, match="does not hold: u0 >= 0"):
        run([torch.tensor(-2), torch.ones(3)])


def test_an_operator_with_another_result_is_noticed() -> None:
    program = read(
        "buf0 = torch.ops.aten.sum.dim_IntList(a, [0])\nassert_size_stride(buf0, (4,), (1,), 'sum')\nreturn (buf0,)"
    )
    assert linked(program, b=None)([torch.ones(2, 4)])[0].tolist() == [2.0] * 4
    with pytest.raises(ArtifactError, match=r"buf0 with sizes \(5,\).*made for \(4,\)"):
        linked(program, b=None)([torch.ones(2, 5)])


def test_a_grid_is_bound_once_for_each_size() -> None:
    bound: list[tuple[int, ...]] = []

    class Fake:
        def bind(self, *grid: int) -> Callable[..., None]:
            bound.append(grid)
            return lambda *args: None

        def __call__(self, *args: Any) -> None: ...

    launch = bound_launch(Fake(), 9, Grid((1,), (4,)))
    for count in (8, 8, 9):
        launch(None, count)
    assert bound == [(2, 1, 1, 9), (3, 1, 1, 9)]
