"""The machine's caches, and the sizes to measure that follow from them."""

from __future__ import annotations

from pathlib import Path

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
# Where the system does not tell: a common server core.
DEFAULT = {1: 32 * 2**10, 2: 2**20, 3: 32 * 2**20}


def cache_sizes(folder: Path = CACHES) -> dict[int, int]:
    """Bytes of the data caches that one core sees, by level."""
    found = {}
    for index in sorted(folder.glob("index*")):
        if (index / "type").read_text().strip() != "Instruction":
            found[int((index / "level").read_text())] = int((index / "size").read_text().strip().rstrip("K")) * 2**10
    return found or dict(DEFAULT)


def working_sets(caches: dict[int, int], limit: int, quick: bool) -> tuple[list[int], str | None]:
    """Working sets in bytes from half of L1 to four times the last level, at most `limit`; and a note where `limit`
    cuts them. Quick: half of L1 and half of L2."""
    first, second, last = caches[1], caches.get(2, caches[1]), caches[max(caches)]
    if quick:
        return sorted({first // 2, second // 2}), None
    wanted = {first // 2, second // 2, 8 * second, 4 * last}
    sizes = sorted({min(size, limit) for size in wanted})
    if 4 * last <= limit:
        return sizes, None
    note = (
        f"working sets end at {limit / 2**20:.0f} MiB (--max-bytes), not at 4 x the last-level cache, which is "
        f"{last / 2**20:.0f} MiB: the largest ones are no test of memory outside the caches unless other users of a "
        "shared cache leave little of it"
    )
    return sizes, note
