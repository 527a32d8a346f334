"""Names for the classes of the MLIR bindings, so that signatures say what a parameter is.

mypy does not follow ``mlir``, and takes all of them for ``Any``.
"""

from __future__ import annotations

from typing import TypeAlias

from mlir import ir

__all__ = ["Attribute", "Block", "InsertionPoint", "Module", "Op", "Region", "Type", "Value"]

Attribute: TypeAlias = ir.Attribute
Block: TypeAlias = ir.Block
InsertionPoint: TypeAlias = ir.InsertionPoint
Module: TypeAlias = ir.Module
Op: TypeAlias = ir.Operation
Region: TypeAlias = ir.Region
Type: TypeAlias = ir.Type
Value: TypeAlias = ir.Value
