"""A device's memory and its command stream: launches are collected and submitted together."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torchport.errors import DeviceLostError, TorchportError
from torchport.runtime.devices import host_bytes
from torchport_webgpu.device import WebGPUDevice

__all__ = ["Buffer", "WebGPUMemory"]

_BATCH = 64
"""Launches that are submitted together, at most: the device starts on them while more are collected."""
_SLOT = 256
"""Bytes between the starts of two launches' arguments: WebGPU's largest alignment of uniform blocks."""
_LOST = "device is lost"
"""In wgpu-native's messages."""
WINDOW = 4096
"""Bytes that a launch sees of the arguments, from its slot on."""


class Buffer:
    """A buffer of the device. ``serial`` tells it from all others, also those that are gone."""

    _serials = itertools.count()
    __slots__ = ("gpu", "serial")

    def __init__(self, gpu: Any) -> None:
        self.gpu = gpu
        self.serial = next(self._serials)


class WebGPUMemory:
    """Satisfies ``torchport.runtime.devices.Memory``."""

    def __init__(self, device: WebGPUDevice) -> None:
        import wgpu

        self.device = device
        self.gpu = device.device
        usage = wgpu.BufferUsage
        self._usage = usage.STORAGE | usage.COPY_SRC | usage.COPY_DST
        self._read = usage.MAP_READ | usage.COPY_DST
        slots = _BATCH * 8 * _SLOT + WINDOW
        self._arguments = self.gpu.create_buffer(size=slots, usage=usage.UNIFORM | usage.COPY_DST)
        self.uniform_layout = self.gpu.create_bind_group_layout(
            entries=[
                {
                    "binding": 0,
                    "visibility": wgpu.ShaderStage.COMPUTE,
                    "buffer": {"type": "uniform", "has_dynamic_offset": True, "min_binding_size": WINDOW},
                }
            ]
        )
        resource = {"buffer": self._arguments, "offset": 0, "size": WINDOW}
        self._uniform = self.gpu.create_bind_group(
            layout=self.uniform_layout, entries=[{"binding": 0, "resource": resource}]
        )
        self._process = os.getpid()
        self._lost = ""
        self._words = bytearray()
        self._encoder: Any = None
        self._pass: Any = None
        self._launches = 0
        self._in_use: set[int] = set()
        self._groups: dict[tuple[Any, ...], Any] = {}
        self._of_buffer: dict[int, set[tuple[Any, ...]]] = {}
        self._layouts: dict[tuple[str, ...], Any] = {}
        self._staging: Any = None
        self.nothing = self.allocate(16)
        """What a null pointer is bound to."""

    def layout(self, kinds: tuple[str, ...]) -> Any:
        """The layout of a bind group of buffers, each ``storage`` or ``read-only-storage``."""
        import wgpu

        if kinds not in self._layouts:
            entries = [
                {"binding": i, "visibility": wgpu.ShaderStage.COMPUTE, "buffer": {"type": kind}}
                for i, kind in enumerate(kinds)
            ]
            self._layouts[kinds] = self.gpu.create_bind_group_layout(entries=entries)
        return self._layouts[kinds]

    def allocate(self, nbytes: int) -> Buffer:
        """A buffer of ``nbytes``. Raises MemoryError if the device has no room or no buffer of that size."""
        import wgpu

        self._here()
        limits = self.device.limits
        most = min(limits["max-storage-buffer-binding-size"], limits["max-buffer-size"])
        if nbytes > most:
            raise MemoryError(f"WebGPU binds buffers of at most {most:,} bytes on {self.device.name}")
        with self.checked(f"{self.device.name} cannot make a buffer"):
            try:
                return Buffer(self.gpu.create_buffer(size=-(-nbytes // 16) * 16, usage=self._usage))
            except wgpu.GPUOutOfMemoryError as error:
                raise MemoryError(str(error)) from error

    def release(self, buffer: Buffer) -> None:
        """Free a buffer and the bind groups that have it, after the launches that use it."""
        if buffer.serial in self._in_use:
            self.flush()
        for key in self._of_buffer.pop(buffer.serial, ()):
            self._groups.pop(key, None)
        buffer.gpu.destroy()

    def upload(self, buffer: Buffer, address: int, nbytes: int) -> None:
        """Copy host memory to a buffer; what is read of it before that is read by launches that are submitted."""
        self._here()
        data = host_bytes(address, nbytes)
        whole = nbytes & ~3
        with self.checked(f"{self.device.name} does not take data"):
            if buffer.serial in self._in_use:
                self.flush()
            if whole:
                self.gpu.queue.write_buffer(buffer.gpu, 0, data[:whole])
            if nbytes > whole:
                self.gpu.queue.write_buffer(buffer.gpu, whole, bytes(data[whole:]) + bytes(4 - (nbytes - whole)))

    def download(self, address: int, buffer: Buffer, nbytes: int) -> None:
        """Copy a buffer to host memory, after all launches so far."""
        import wgpu

        self._here()
        size = -(-nbytes // 16) * 16
        if self._staging is None or self._staging.size < size:
            if self._staging is not None:
                self._staging.destroy()
            with self.checked(f"{self.device.name} cannot make a buffer"):
                self._staging = self.gpu.create_buffer(size=max(size, 1 << 16), usage=self._read)
        self._end_pass()
        with self.checked(f"{self.device.name} failed"):
            if self._encoder is None:
                self._encoder = self._begin()
            self._encoder.copy_buffer_to_buffer(buffer.gpu, 0, self._staging, 0, size)
            self.flush()
            self._staging.map_sync(wgpu.MapMode.READ, 0, size)
            host_bytes(address, nbytes)[:] = self._staging.read_mapped(0, size, copy=False)[:nbytes]
            self._staging.unmap()

    @contextmanager
    def checked(self, what: str) -> Iterator[None]:
        """Errors of the device in the context become a TorchportError that says ``what`` failed, or that it is lost."""
        import wgpu

        if self._lost:
            raise DeviceLostError(self._lost)
        try:
            yield
        except (wgpu.GPUError, RuntimeError) as error:
            if isinstance(error, TorchportError):
                raise
            if _LOST in str(error):
                self._lost = (
                    f"{self.device.name} was lost (its driver was reset, or it was removed), and with it the tensors "
                    "that were there only; start the process again"
                )
                raise DeviceLostError(self._lost) from error
            raise TorchportError(f"{what}: {str(error).strip()}") from error

    def _begin(self) -> Any:
        """A new list of commands. WebGPU says when one is submitted that the device is lost; this asks before."""
        self.gpu.create_bind_group_layout(entries=[])
        return self.gpu.create_command_encoder()

    def launch(
        self, pipeline: Any, layout: Any, buffers: Sequence[Buffer], words: bytes, grid: tuple[int, int, int]
    ) -> None:
        """Add a launch to those that wait to be submitted."""
        self._here()
        offset = len(self._words)
        self._words += words
        self._words += bytes(-len(words) % _SLOT)
        if self._pass is None:
            if self._encoder is None:
                self._encoder = self._begin()
            self._pass = self._encoder.begin_compute_pass()
        self._pass.set_pipeline(pipeline)
        self._pass.set_bind_group(0, self._group(layout, buffers))
        self._pass.set_bind_group(1, self._uniform, [offset])
        self._pass.dispatch_workgroups(*grid)
        self._in_use.update(buffer.serial for buffer in buffers)
        self._launches += 1
        if self._launches >= _BATCH or len(self._words) > (_BATCH * 8 - 16) * _SLOT:
            self.flush()

    def _group(self, layout: Any, buffers: Sequence[Buffer]) -> Any:
        key = (id(layout), *(buffer.serial for buffer in buffers))  # layouts live as long as this memory
        group = self._groups.get(key)
        if group is None:
            entries = [
                {"binding": i, "resource": {"buffer": buffer.gpu, "offset": 0, "size": buffer.gpu.size}}
                for i, buffer in enumerate(buffers)
            ]
            group = self._groups[key] = self.gpu.create_bind_group(layout=layout, entries=entries)
            for buffer in buffers:
                self._of_buffer.setdefault(buffer.serial, set()).add(key)
        return group

    def _end_pass(self) -> None:
        if self._pass is not None:
            self._pass.end()
            self._pass = None

    def flush(self) -> None:
        """Submit what was collected."""
        self._end_pass()
        if self._encoder is None:
            return
        if self._words:
            self.gpu.queue.write_buffer(self._arguments, 0, bytes(self._words))
        encoder, self._encoder = self._encoder, None
        self._words.clear()
        self._in_use.clear()
        self._launches = 0
        self.gpu.queue.submit([encoder.finish()])

    def _here(self) -> None:
        if os.getpid() != self._process:
            raise TorchportError(f"{self.device.name} was opened before this process was forked: use spawn")
