"""Writes a folder of static files that runs a model in a browser (docs/webgpu.md)."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from torchport_simt.wgsl.program import Adapter, prelude

import torchport
from torchport.errors import CompilationError, OptionError
from torchport.files import write_whole
from torchport.packages import weights
from torchport.packages.containers import plain
from torchport.packages.exporting import Exported, export
from torchport.packages.manifest import TensorInput
from torchport.packages.placing import placed_in_file
from torchport.plugin import Page
from torchport.program import Place, follow
from torchport.runtime import events
from torchport_webgpu.browser.check import Expected, expected
from torchport_webgpu.browser.convolution import DECOMPOSITIONS
from torchport_webgpu.browser.driver import compiling
from torchport_webgpu.browser.launches import Recorder
from torchport_webgpu.browser.limits import BINDING_BYTES, BROWSER
from torchport_webgpu.browser.plan import Memory, Plan, plan

__all__ = ["SCHEMA", "write_page"]

SCHEMA = "torchport.page/1"
_STATIC = ("page.css", "page.js", "torchport.js")


def write_page(model: Callable[..., Any], args: Sequence[Any], folder: Path, name: str) -> Page:
    """Compile ``model`` for browsers and write the page to ``folder``.

    args: example inputs; the page runs the model on them and compares with the CPU.
    name: the page's title.

    Raises CompilationError for what cannot run in a browser, naming the operation and the line of the model.
    """
    if not all(isinstance(leaf, torch.Tensor) for leaf in _leaves(args)):
        raise OptionError("a page's inputs are tensors; bind numbers and texts in the model")
    with compiling(), events.capture() as happened:
        exported = export(model, args, None, None, str(BROWSER), DECOMPOSITIONS)
        made = _planned(exported, [one for one in happened if isinstance(one, events.Fallback)])
    wanted = expected(model, args)
    if [one.sizes for one in made.results] != [tuple(one.value.shape) for one in wanted]:
        raise CompilationError("the exported graph returns other results than the model")
    return _Folder(folder).write(name, exported, made, args, wanted)


@dataclass(frozen=True)
class _Made:
    """A plan with where inputs and results are, and the bytes of weights in their order."""

    plan: Plan
    inputs: tuple[Place, ...]
    results: tuple[Place, ...]
    stored: Mapping[str, torch.Tensor]
    chunks: tuple[tuple[str, int, int], ...]


def _planned(exported: Exported, fallbacks: Sequence[events.Fallback]) -> _Made:
    stored, placed = placed_in_file({name: tensor for (name, _), tensor in exported.weights.items()})
    starts, chunks = _chunks(stored)
    places: dict[str, Place] = {}
    for (name, label), tensor in exported.weights.items():
        at = placed[name]
        chunk, start = starts[at.tensor]
        places[label] = Place(chunk, tensor.dtype, at.sizes, at.strides, start + at.offset * tensor.dtype.itemsize)
    inputs = []
    for one in exported.inputs:
        if not isinstance(one, TensorInput):
            raise CompilationError(f"input {one.name} is no tensor, which a page cannot take")
        place = Place(f"input {one.input}", getattr(torch, one.dtype), one.sizes, one.strides)
        places[one.input] = place
        inputs.append(place)
    written = {exported.program.inputs[place] for place in exported.graph.written}
    for (name, label), _ in exported.weights.items():
        if label in written:
            raise CompilationError(f"the model writes {name}, and a page's weights do not change; call model.eval()")
    known = {places[label]: tensor for (_, label), tensor in exported.weights.items()}
    recorder = Recorder(exported.graph.kernels, fallbacks, known)
    results = follow(exported.program, places, recorder, exported.sites)
    for number, one in enumerate(results):
        if not isinstance(one, Place):
            raise CompilationError(f"result {number} is {one!r}; a page computes tensors")
    memories = [Memory(name, size, "weights") for name, _, size in chunks]
    memories += [Memory(one.buffer, one.reach, "input") for one in inputs]
    memories += [Memory(name, size, "between") for name, size in recorder.sizes.items()]
    made = plan(recorder.launches, memories, [one.buffer for one in results])
    return _Made(made, tuple(inputs), tuple(results), stored, tuple(chunks))


def _chunks(stored: Mapping[str, torch.Tensor]) -> tuple[dict[str, tuple[str, int]], list[tuple[str, int, int]]]:
    """Where each stored tensor is: a chunk of the file and the bytes before it there; the chunks, from where to where.

    A chunk is as large as every browser binds, or has one tensor.
    """
    _, order = weights.layout(stored)
    starts: dict[str, tuple[str, int]] = {}
    chunks: list[tuple[str, int, int]] = []
    position = 0
    for name in order:
        size = stored[name].nbytes
        if not chunks or chunks[-1][2] + size > BINDING_BYTES:
            chunks.append((f"weights {len(chunks)}", position, 0))
        label, first, length = chunks[-1]
        starts[name] = label, position - first
        chunks[-1] = label, first, length + size
        position += size
    return starts, chunks


class _Folder:
    """Files, with their sizes and digests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, dict[str, Any]] = {}
        self._bytes = 0

    def _put(self, name: str, data: bytes) -> str:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
        self._files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        self._bytes += len(data)
        return name

    def _tensors(self, name: str, tensors: Mapping[str, torch.Tensor]) -> tuple[str, int]:
        """Write safetensors; also returns where their bytes begin."""
        header, _ = weights.layout(tensors)
        return self._put(name, b"".join(bytes(piece) for piece in weights.stream(tensors))), len(header)

    def write(
        self, name: str, exported: Exported, made: _Made, args: Sequence[Any], wanted: Sequence[Expected]
    ) -> Page:
        """Write all files; index.html comes last, so a folder that has it is complete."""
        texts = "\n".join(shader.text for shader in made.plan.shaders)
        preludes = {}
        for kind in ("fused", "pair"):
            adapter = Adapter(float64=False, fused=kind == "fused", int64=False, short=True)
            preludes[kind] = self._put(f"kernels/prelude-{kind}.wgsl", prelude(texts, adapter).encode())
        shaders = []
        for number, shader in enumerate(made.plan.shaders):
            file = self._put(f"kernels/{number:03}-{shader.name[:60]}.wgsl", shader.text.encode())
            shaders.append({"file": file, **shader.as_json()})
        weights_file, start = self._tensors("weights.safetensors", made.stored)
        given = [leaf.detach().contiguous() for leaf in _leaves(args)]
        inputs_file, _ = self._tensors("inputs.safetensors", {str(i): one for i, one in enumerate(given)})
        results = {str(i): one.value.contiguous() for i, one in enumerate(wanted)}
        reference_file, _ = self._tensors("reference.safetensors", results)
        buffers = made.plan.buffers
        about = {
            "schema": SCHEMA,
            "title": name,
            "torchport": torchport.__version__,
            "torch": torch.__version__,
            "files": self._files,
            "limits": made.plan.limits,
            "preludes": preludes,
            "shaders": shaders,
            "buffers": made.plan.sizes,
            "weights": {
                "file": weights_file,
                "chunks": [
                    {"buffer": buffers[label][0], "start": start + first, "bytes": length}
                    for label, first, length in made.chunks
                ],
            },
            "inputs": [
                {"name": one.name, **_place(place, buffers)}
                for one, place in zip(exported.inputs, made.inputs, strict=True)
            ],
            "launches": made.plan.launches,
            "outputs": [
                {"name": str(number), **_place(place, buffers)} for number, place in enumerate(made.results)
            ],
            "check": {
                "inputs": inputs_file,
                "reference": reference_file,
                "results": [{"cpu": one.eager, "bound": one.bound} for one in wanted],
            },
        }  # fmt: skip
        static = files("torchport_webgpu.browser") / "static"
        for file in _STATIC:
            self._put(file, (static / file).read_bytes())
        text = (json.dumps(about, separators=(",", ":")) + "\n").encode()
        digest = hashlib.sha256(text).hexdigest()
        self._put("model.json", text)
        page = (static / "index.html").read_text()
        page = page.replace("{{title}}", html.escape(name)).replace("{{sha256}}", digest)
        self._put("index.html", page.encode())
        return Page(self._folder / "index.html", len(shaders), len(made.plan.launches), self._bytes)


def _leaves(args: Sequence[Any]) -> list[Any]:
    """The values of the inputs, in torch.export's order."""
    return list(tree_leaves([plain(one, "an input").value for one in args]))


def _place(place: Place, buffers: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    buffer, before = buffers[place.buffer]
    return {
        "dtype": str(place.dtype).removeprefix("torch."), "shape": list(place.sizes), "strides": list(place.strides),
        "buffer": buffer, "offset": before + place.offset,
    }  # fmt: skip
