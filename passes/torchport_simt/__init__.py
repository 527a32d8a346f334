"""Lowers TTIR to a C-like kernel language: the integration path ``simt``, for vendors without a Triton compiler.

``Spelling`` defines what differs between languages, ``SIMTCompiler`` is what a plugin's ``compiler`` returns.
docs/simt.md describes the generated code.
"""

from torchport_simt.compilation import SIMTCompiler
from torchport_simt.spelling import Spelling

__all__ = ["SIMTCompiler", "Spelling"]
