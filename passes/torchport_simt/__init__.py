"""TTIR to a C-like kernel language, for vendors that have one: the way in that needs no Triton compiler.

``Spelling`` says how a language spells what differs between languages, ``SIMTCompiler`` is what a plugin's ``compiler``
returns. docs/simt.md describes the code that comes out.
"""

from torchport_simt.compilation import SIMTCompiler
from torchport_simt.spelling import Spelling

__all__ = ["SIMTCompiler", "Spelling"]
