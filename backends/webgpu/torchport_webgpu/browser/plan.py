"""Turns launches into what the page reads: shaders, buffers and dispatches, all by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torchport_simt.wgsl.program import bound_kernel, in_fours, uneven

from torchport_webgpu.browser.launches import Kernel, Launch
from torchport_webgpu.browser.limits import BUFFERS
from torchport_webgpu.browser.memory import lay_out

__all__ = ["Memory", "Plan", "Shader", "plan"]

_NOTHING = 16
"""Bytes of a buffer that is bound where an argument is missing, and of one for failed assertions."""


@dataclass(frozen=True)
class Memory:
    """Bytes that tensors lie in; ``kind`` is ``weights``, ``input`` or ``between`` (launches)."""

    name: str
    size: int
    kind: str


@dataclass(frozen=True)
class Shader:
    """A WGSL module without its prelude.

    name: the kernel's name.
    entry: the function's name.
    kinds: of its bindings, ``storage`` or ``read-only-storage``.
    sites: messages of its assertions.
    status: the buffer in which a failed one is noted.
    """

    name: str
    entry: str
    text: str
    kinds: tuple[str, ...]
    sites: tuple[str, ...]
    status: int | None

    def as_json(self) -> dict[str, Any]:
        """What the page needs of it besides the text."""
        return {
            "name": self.name,
            "entry": self.entry,
            "bindings": self.kinds,
            "sites": self.sites,
            "status": self.status,
        }


@dataclass
class Plan:
    """All that a page does.

    sizes: bytes of each buffer.
    buffers: of each memory, its buffer's number and the bytes before it.
    launches: dispatches as JSON values.
    limits: the limits of WebGPU that an adapter must have, by their names there.
    """

    sizes: list[int]
    buffers: Mapping[str, tuple[int, int]]
    shaders: list[Shader] = field(default_factory=list)
    launches: list[dict[str, Any]] = field(default_factory=list)
    limits: dict[str, int] = field(default_factory=dict)


def plan(launches: Sequence[Launch], memories: Sequence[Memory], results: Sequence[str]) -> Plan:
    """The plan for ``launches``, in order. ``results``: memories that are read at the end."""
    kinds = {one.name: one.kind for one in memories}
    used: dict[str, list[int]] = {name: [] for name in kinds}
    for number, launch in enumerate(launches):
        for name in launch.buffers:
            if name is not None:
                used[name].append(number)
    for name in results:
        used[name].append(len(launches))
    alone = [one for one in memories if one.kind != "between"]
    between = {one.name: one.size for one in memories if one.kind == "between" and used[one.name]}
    lives = {name: (used[name][0], used[name][-1]) for name in between}
    laid = lay_out(between, lives, _together(launches, kinds), len(alone))
    sizes = [-(-max(one.size, 16) // 16) * 16 for one in alone] + list(laid.sizes)
    places = {one.name: (number, 0) for number, one in enumerate(alone)} | dict(laid.places)
    made = Plan(sizes, places)
    shaders = _Shaders(made)
    for launch in launches:
        made.launches.append(shaders.dispatch(launch))
    made.limits = {
        "maxStorageBuffersPerShaderStage": max((len(one.kinds) for one in made.shaders), default=0),
        "maxStorageBufferBindingSize": max(sizes),
        "maxBufferSize": max(sizes),
        "maxComputeInvocationsPerWorkgroup": shaders.lanes,
        "maxComputeWorkgroupSizeX": shaders.lanes,
        "maxComputeWorkgroupStorageSize": shaders.scratchpad,
    }
    return made


def _together(launches: Sequence[Launch], kinds: Mapping[str, str]) -> list[set[str]]:
    """Memories that must share a buffer, as a launch would bind more buffers than every browser does."""
    groups: list[set[str]] = []
    for launch in launches:
        names = {name for name in launch.buffers if name is not None}
        asserts = bool(launch.kernel.binary.metadata["sites"])
        if len(names) + asserts + (None in launch.buffers) <= BUFFERS:
            continue
        joined = {name for name in names if kinds[name] == "between"}
        apart = []
        for group in groups:
            if group & joined:
                joined |= group
            else:
                apart.append(group)
        groups = [*apart, joined]
    return groups


class _Shaders:
    """The shaders so far: each kernel once for each way in which its arguments share buffers."""

    def __init__(self, made: Plan) -> None:
        self._plan = made
        self._known: dict[Any, tuple[int, tuple[int, ...]]] = {}
        self._status: dict[bytes, int] = {}
        self._nothing: int | None = None
        self.lanes = 0
        self.scratchpad = 0

    def dispatch(self, launch: Launch) -> dict[str, Any]:
        """A launch as the page does it; words have the offsets of memories in their buffers."""
        words = list(launch.words)
        buffers = []
        for name, at in zip(launch.buffers, launch.offsets, strict=True):
            if name is None:
                buffers.append(self._empty())
                continue
            number, before = self._plan.buffers[name]
            words[at] += before
            buffers.append(number)
        sites = tuple(launch.kernel.binary.metadata["sites"])
        if sites:
            buffers.append(self._status_of(launch.kernel))
        scattered = uneven(in_fours(launch.kernel.binary.data.decode()), [words[at] for at in launch.offsets])
        shader, bound = self._shader(launch.kernel, tuple(buffers), sites, scattered)
        return {"shader": shader, "buffers": [buffers[i] for i in bound], "words": words, "grid": launch.grid}

    def _shader(
        self, kernel: Kernel, buffers: tuple[int, ...], sites: tuple[str, ...], scattered: tuple[int, ...]
    ) -> tuple[int, tuple[int, ...]]:
        binary = kernel.binary
        shared = tuple(buffers.index(number) for number in buffers)
        key = binary.data, shared, scattered
        if key not in self._known:
            lanes = int(binary.metadata["lanes"])
            text, bound, writable = bound_kernel(binary.data.decode(), lanes, shared, scattered)
            kinds = tuple("storage" if writes else "read-only-storage" for writes in writable)
            status = self._status[binary.data] if sites else None
            self._plan.shaders.append(Shader(kernel.name, binary.symbol, text, kinds, sites, status))
            self._known[key] = len(self._plan.shaders) - 1, bound
            self.lanes = max(self.lanes, lanes)
            self.scratchpad = max(self.scratchpad, binary.resources.scratchpad_bytes)
        return self._known[key]

    def _empty(self) -> int:
        if self._nothing is None:
            self._nothing = self._new()
        return self._nothing

    def _status_of(self, kernel: Kernel) -> int:
        if kernel.binary.data not in self._status:
            self._status[kernel.binary.data] = self._new()
        return self._status[kernel.binary.data]

    def _new(self) -> int:
        self._plan.sizes.append(_NOTHING)
        return len(self._plan.sizes) - 1
