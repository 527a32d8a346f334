"""The user's line that calls an operator."""

from __future__ import annotations

import contextlib
import linecache
from pathlib import Path
from types import FrameType

import torch
import typing_extensions

from torchport.inductor.codegen.description import DESCRIPTION
from torchport.numerics.graphs.source_lines import Source

__all__ = ["source_line"]

_LIBRARIES = (
    str(Path(torch.__file__).parent), str(Path(__file__).parents[2]), typing_extensions.__file__, contextlib.__file__,
)  # fmt: skip
"""Where frames are not the user's: in torch, in torchport, and in what wraps functions of torch."""

_COMMAND = str(Path(__file__).parents[2] / "cli")
_CALL = torch.nn.Module.__call__.__code__


def source_line(frame: FrameType | None, model: torch.nn.Module | None = None) -> Source | None:
    """The line of the innermost caller, inside of ``model`` if given, that is no library and no compiled graph.

    Where there is none, as in ``nn.Sequential``: the line of the innermost ``forward`` of a module of torch.
    """
    within = None
    while frame is not None and (
        frame.f_code.co_filename.startswith((*_LIBRARIES, "<")) or DESCRIPTION in frame.f_globals
    ):
        calls_model = model is not None and frame.f_code is _CALL and frame.f_locals.get("self") is model
        if calls_model or frame.f_code.co_filename.startswith(_COMMAND):
            frame = None  # beyond are those who call the model
            break
        within = frame if within is None and frame.f_code.co_name == "forward" else within
        frame = frame.f_back
    frame = within if frame is None else frame
    if frame is None:
        return None
    code, line = frame.f_code, frame.f_lineno
    text = linecache.getline(code.co_filename, line).strip()
    return {"file": code.co_filename, "line": line, "function": code.co_name, "code": text}
