"""Lists the undefined symbols of an object file, for messages about objects that cannot be loaded."""

from __future__ import annotations

import struct

__all__ = ["undefined_symbols"]

_SYMBOL_TABLE = 2  # SHT_SYMTAB
_SYMBOL_BYTES = 24  # Elf64_Sym


def undefined_symbols(image: bytes) -> list[str]:
    """The names that a little-endian ELF64 object uses but does not define, sorted; none for other or damaged files.

    Offsets are those of Elf64_Ehdr, Elf64_Shdr and Elf64_Sym in the ELF-64 object file format. llvmlite reads objects
    too, but crashes on any other file.
    """
    if not image.startswith(b"\x7fELF\x02\x01"):
        return []
    names = []
    try:
        (headers,) = struct.unpack_from("<Q", image, 40)
        size, count = struct.unpack_from("<HH", image, 58)
        for header in range(headers, headers + size * count, size or 1):
            (kind,) = struct.unpack_from("<I", image, header + 4)
            if kind != _SYMBOL_TABLE:
                continue
            start, length, strings = struct.unpack_from("<QQI", image, header + 24)
            (texts,) = struct.unpack_from("<Q", image, headers + size * strings + 24)
            for symbol in range(start, start + length, _SYMBOL_BYTES):
                name, section = struct.unpack_from("<IxxH", image, symbol)
                if name and section == 0:
                    names.append(image[texts + name : image.index(b"\0", texts + name)].decode())
    except (struct.error, ValueError):
        return []
    return sorted(names)
