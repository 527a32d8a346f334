"""A user's model, named FILE.py:FUNCTION on the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from torchport.factories import load_function, load_model

__all__ = ["Model", "load_function", "load_model"]

Model = Annotated[str, typer.Argument(help="FILE.py:FUNCTION; the function returns (model, inputs).")]
