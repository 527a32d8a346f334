"""Reads the code that Inductor wrote around a graph's kernels, and makes a program of it (``torchport.program``).

The code is a small language in Python's grammar. All of it is read: what is not known here is an error.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

from torchport.errors import CompilationError
from torchport.inductor.compat import PythonPrinter
from torchport.program import Call, Check, Launch, Let, Program, Require, Step
from torchport.program.operators import NAMESPACES, Refused, find

__all__ = ["program_of", "value_of"]

Locate = Callable[[str, Sequence[str]], str]
"""An operator (or nothing) and names of a graph's nodes -> the line of the model that they come from, or nothing."""

_BINARY = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Div: "/", ast.Mod: "%", ast.Pow: "**",
}  # fmt: skip
_COMPARED = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_FUNCTIONS = {
    "reinterpret_tensor": "view", "torchport_counted_view": "counted_view", "torchport_in_memory": "in_memory",
    "empty_strided_cpu": "empty", "torchport_kept": "empty", "torchport_private": "empty", "max": "max", "min": "min",
    "math.floor": "floor", "math.ceil": "ceil", "math.trunc": "trunc", "int": "trunc",
}  # fmt: skip
_NODES = re.compile(r"#.*Source Nodes: \[([^\]]*)\]")
_IGNORED = ("assert_alignment",)  # Inductor's own expectation of an operator; kernels need none


class _Unknown(Exception):
    """Code that no program can hold; the text says what, ``operator`` which operator it calls."""

    def __init__(self, text: str, operator: str = "") -> None:
        super().__init__(text)
        self.operator = operator


def program_of(
    code: str,
    kernels: Collection[str],
    locate: Locate = lambda operator, nodes: "",
    namespaces: Collection[str] = NAMESPACES,
    sites: dict[int, str] | None = None,
    sizes: set[str] | None = None,
) -> Program:
    """The program of a graph's generated code.

    kernels: names of the kernels that torchport loads.
    locate: finds the line of the model for an error.
    namespaces: whose operators it may call.
    sites: is filled with the line of the model that each step comes from which calls an operator, by its number.
    sizes: is filled with the names that the code asserts sizes or strides of inputs by.

    Raises CompilationError for what a program cannot hold, naming the operation and the line.
    """
    functions = [n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.FunctionDef) and n.name == "call"]
    if len(functions) != 1:
        raise CompilationError(f"the graph's code has {len(functions)} functions 'call'; a program holds one graph")
    reader = _Reader(kernels, namespaces)
    lines = code.splitlines()
    for statement in functions[0].body:
        known = len(reader.steps)
        try:
            reader.statement(statement)
            if sites is not None and len(reader.steps) > known and isinstance(step := reader.steps[-1], Call):
                sites[known] = locate(step.operator, _nodes_above(lines, statement.lineno))
        except _Unknown as problem:
            where = locate(problem.operator, _nodes_above(lines, statement.lineno))
            raise CompilationError(
                f"{problem} cannot be part of a program" + (f" ({where})" if where else "")
            ) from problem
    if sizes is not None:
        sizes |= reader.sizes
    if reader.results is None:
        raise CompilationError("the graph's code returns nothing that a program can hold")
    return Program(tuple(reader.inputs), tuple(reader.steps), tuple(reader.results))


def value_of(expression: Any) -> Any:
    """A number, or one of sympy's expressions over sizes, as a program's value. Raises CompilationError."""
    if isinstance(expression, int):
        return expression
    text = PythonPrinter().doprint(expression)
    try:
        return _Reader(()).value(ast.parse(text, mode="eval").body)
    except _Unknown as problem:
        raise CompilationError(f"{problem} cannot be part of a program (a relation between sizes)") from problem


def _nodes_above(lines: Sequence[str], line: int) -> list[str]:
    """The nodes that the comment above a line of generated code names."""
    for text in reversed(lines[max(0, line - 3) : line - 1]):
        if (found := _NODES.search(text)) is not None:
            return [name.strip() for name in found[1].split(",")]
    return []


class _Reader:
    """Statements of generated code, read one by one."""

    def __init__(self, kernels: Collection[str], namespaces: Collection[str] = NAMESPACES) -> None:
        self.inputs: list[str] = []
        self.steps: list[Step] = []
        self.results: list[Any] | None = None
        self.sizes: set[str] = set()
        self._kernels = kernels
        self._namespaces = namespaces
        self._layouts: dict[str, tuple[str, str]] = {}  # of a variable with all sizes or strides: which, of what

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign(targets=[ast.Tuple(elts=names) | ast.List(elts=names)], value=ast.Name(id="args")):
                self.inputs = [ast.unparse(name) for name in names]
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._assign(name, value)
            case ast.Expr(value=ast.Call() as call):
                self._call(call, None)
            case ast.If(test=test, body=[ast.Raise(exc=ast.Call(args=[ast.Constant(value=str(text))]))], orelse=[]):
                self.steps.append(Require(["not", self.value(test)], text))
            case ast.Return(value=ast.Tuple(elts=values)):
                self.results = [self.value(value) for value in values]
            case ast.Delete() | ast.Pass():  # a value goes after its last use
                pass
            case _:
                raise _Unknown(f"'{ast.unparse(node).splitlines()[0]}'")

    def _assign(self, name: str, value: ast.expr) -> None:
        match value:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=tensor), attr="size" | "stride" as which), args=[]):
                self._layouts[name] = which, tensor
            case ast.Call() if self._operation(value) is None:
                self._call(value, name)
            case _:
                self.steps.append(Let(name, self.value(value)))

    def _call(self, node: ast.Call, to: str | None) -> None:
        function = ast.unparse(node.func)
        owner, _, method = function.rpartition(".")
        if function == "args.clear" or function in _IGNORED:
            return
        if function == "assert_size_stride":
            self._check(node)
        elif method == "launch" and owner in self._kernels and not node.keywords:
            self.steps.append(Launch(owner, [self.value(arg) for arg in node.args]))
        elif (operator := self._operator(function, {keyword.arg for keyword in node.keywords})) is not None:
            args = [self.value(arg) for arg in node.args]
            kwargs = {str(keyword.arg): self.value(keyword.value) for keyword in node.keywords}
            self.steps.append(Call(operator, args, kwargs, to))
        else:
            raise _Unknown(f"the call of {function}")

    def _check(self, node: ast.Call) -> None:
        match node.args:
            case [ast.Name(id=name), ast.Tuple(elts=sizes), ast.Tuple(elts=strides), *_]:
                if name not in self.inputs:
                    self.steps.append(Check(name, [*map(self.value, sizes)], [*map(self.value, strides)]))
                else:  # inputs are checked before the program runs
                    layout = (one for value in (*sizes, *strides) for one in ast.walk(value))
                    self.sizes |= {one.id for one in layout if isinstance(one, ast.Name)}
            case _:
                raise _Unknown(f"'{ast.unparse(node)}'")

    def _operation(self, node: ast.Call) -> str | None:
        """The operation on values that a call is, if it is one."""
        function = ast.unparse(node.func)
        if function in _FUNCTIONS:
            return _FUNCTIONS[function]
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("size", "stride") and len(node.args) == 1:
            return node.func.attr
        for method in ("item", "detach"):
            if function.endswith(f".{method}") and not node.args:
                return method
        return "literal" if function in ("float", "device", "torch.device") else None

    def _operator(self, function: str, keywords: set[str | None]) -> str | None:
        """The operator that generated code calls by ``function``; None if it calls none. Raises _Unknown."""
        if function.startswith("extern_kernels."):
            name = f"aten.{function.removeprefix('extern_kernels.')}.{'out' if 'out' in keywords else 'default'}"
        elif function.startswith(("torch.ops.", *(f"{namespace}." for namespace in NAMESPACES))):
            name = function.removeprefix("torch.ops.")
            if name.count(".") == 1:
                name += ".default"
        else:
            return None
        try:
            find(name, self._namespaces)
        except Refused as error:
            raise _Unknown(f"operator {name} ({error})", name) from error
        return name

    def value(self, node: ast.expr) -> Any:
        """An expression as a program's value."""
        match node:
            case ast.Constant(value=str(text)):
                return ["text", text]
            case ast.Constant(value=bool() | int() | float() | None as number):
                return number
            case ast.Name(id="inf" | "nan" as text):
                return ["float", text]
            case ast.Name(id=name):
                return name
            case ast.UnaryOp(op=ast.USub(), operand=ast.Name(id="inf")):
                return ["float", "-inf"]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                inner = self.value(operand)
                return -inner if isinstance(inner, (int, float)) else ["neg", inner]
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ["not", self.value(operand)]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return [_BINARY[type(op)], self.value(left), self.value(right)]
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARED:
                return [_COMPARED[type(op)], self.value(left), self.value(right)]
            case ast.BoolOp(op=op, values=values):
                return ["and" if isinstance(op, ast.And) else "or", *map(self.value, values)]
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return ["if", self.value(test), self.value(body), self.value(orelse)]
            case ast.Tuple(elts=values):
                return ["tuple", *map(self.value, values)]
            case ast.List(elts=values):
                return ["list", *map(self.value, values)]
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=int(index))):
                return [*self._layouts.get(name, ("part", name)), index]
            case ast.Attribute(value=ast.Name(id="torch"), attr=name):
                return _of_torch(name)
            case ast.Call():
                return self._called(node)
            case _:
                raise _Unknown(f"'{ast.unparse(node)}'")

    def _called(self, node: ast.Call) -> Any:
        operation = self._operation(node)
        match operation, node:
            case "item" | "detach" | "size" | "stride", ast.Call(func=ast.Attribute(value=tensor), args=args):
                return [operation, self.value(tensor), *map(self.value, args)]
            case "literal", ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=str(text))]):
                return ["float", text]
            case "literal", ast.Call() if "'cpu'" in ast.unparse(node):
                return ["device", "cpu"]
            case str(), ast.Call(args=args, keywords=[]) if operation != "literal":
                return [operation, *map(self.value, args)]
            case _:
                raise _Unknown(f"the call of {ast.unparse(node.func)}")


_TORCH: Mapping[type, str] = {torch.dtype: "dtype", torch.layout: "layout", torch.memory_format: "memory_format"}


def _of_torch(name: str) -> list[str]:
    kind = _TORCH.get(type(getattr(torch, name, None)))
    if kind is None:
        raise _Unknown(f"torch.{name}")
    return [kind, name]
