"""Checkpoints and data of the user's own, from local folders; nothing is downloaded and no pickle is read."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from torchport.errors import OptionError
from torchport.evaluation.suite import ModelSpec

__all__ = ["batches", "checkpoint", "load_weights"]

Inputs = Mapping[str, Any] | Sequence[Any]


def checkpoint(spec: ModelSpec) -> nn.Module:
    """The model in a folder that ``transformers`` wrote, of the class that its configuration names.

    Raises OptionError without transformers, for a folder that is none, and for one with code or pickles in it.
    """
    hf = _transformers(f"the checkpoint of {spec.name}")
    folder = Path(spec.checkpoint)
    if not (folder / "config.json").is_file():
        raise OptionError(f"model {spec.name!r}: {folder} is no folder with a config.json")
    try:
        config = hf.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        named = next((name for name in config.architectures or () if hasattr(hf, name)), "AutoModel")
        made: nn.Module = getattr(hf, named).from_pretrained(
            folder, config=config, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        raise OptionError(f"model {spec.name!r}: {folder} cannot be loaded: {error}") from error
    return made


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill ``module`` with the tensors of a safetensors file. Raises OptionError if names or shapes do not fit."""
    try:
        missing, extra = module.load_state_dict(_tensors(path), strict=False)
    except RuntimeError as error:  # shapes
        raise OptionError(f"the weights {path} do not fit: {error}") from error
    if missing or extra:
        raise OptionError(
            f"the weights {path} do not fit: missing {', '.join(missing[:3]) or 'none'}, unknown "
            f"{', '.join(extra[:3]) or 'none'}"
        )


def batches(spec: ModelSpec, inputs: Sequence[Any] | None) -> list[Inputs]:
    """The batches of inputs of a model of the user's.

    inputs: what ``make`` returned; they are one batch where ``data`` names no file. Raises OptionError for a file of no
    known form, one without examples, and missing packages.
    """
    if not spec.data:
        if inputs is None:
            raise OptionError(f"model {spec.name!r} has a checkpoint and no 'data': name a file of inputs")
        return [inputs]
    path = Path(spec.data)
    if path.suffix == ".safetensors":
        found: list[Inputs] = list(islice(_cut(_tensors(path), spec.batch, path), spec.batches))
    elif path.suffix in (".jsonl", ".parquet"):
        rows = _jsonl(path) if path.suffix == ".jsonl" else _parquet(path)
        found = list(islice(_token_batches(spec, rows), spec.batches))
    else:
        raise OptionError(f"model {spec.name!r}: {path} is of no known form; valid: .jsonl, .parquet, .safetensors")
    if not found:
        raise OptionError(f"model {spec.name!r}: {path} has no batch of {spec.batch} examples of {spec.tokens} tokens")
    return found


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise OptionError(f"{path} cannot be read: {error}") from error


def _cut(tensors: Mapping[str, torch.Tensor], batch: int, path: Path) -> Iterator[Mapping[str, torch.Tensor]]:
    """Batches of inputs by name, whose first dimension is that of examples; a rest of less is left out."""
    counts = {tensor.shape[0] if tensor.dim() else 0 for tensor in tensors.values()}
    if len(counts) != 1:
        raise OptionError(f"the inputs in {path} have {sorted(counts)} examples: all must have as many")
    for start in range(0, counts.pop() - batch + 1, batch):
        yield {name: tensor[start : start + batch] for name, tensor in tensors.items()}


def _jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open() as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _object(line, f"{path}, line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _object(line: str, place: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise OptionError(f"{place} cannot be read: {getattr(error, 'msg', error)}") from error
    if not isinstance(row, dict):
        raise OptionError(f"{place}: expected an object")
    return row


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    if importlib.util.find_spec("datasets") is None:
        raise OptionError(f"{path} is read by the package datasets: pip install datasets")
    import datasets

    yield from datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)


def _token_batches(spec: ModelSpec, rows: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, torch.Tensor]]:
    """Texts, or token ids, cut into examples of ``spec.tokens`` tokens; no example has padding or crosses texts."""
    encode = None
    held: list[list[int]] = []
    for number, row in enumerate(rows, 1):
        if spec.column not in row:
            raise OptionError(f"{spec.data} has no column {spec.column!r}; it has {', '.join(map(str, row))}")
        value = row[spec.column]
        if isinstance(value, str):
            encode = encode or _tokenizer(spec)
            value = encode(value)
        if not isinstance(value, Sequence) or not all(type(one) is int and 0 <= one < 2**63 for one in value):
            raise OptionError(
                f"{spec.data}, row {number}: {spec.column!r} is {str(value)[:40]}, and not text or a list of token ids"
            )
        for start in range(0, len(value) - spec.tokens + 1, spec.tokens):
            held.append(list(value[start : start + spec.tokens]))
            if len(held) == spec.batch:
                yield {"input_ids": torch.tensor(held)}
                held = []


def _tokenizer(spec: ModelSpec) -> Any:
    hf = _transformers(f"the texts in {spec.data}")
    if not spec.checkpoint:
        raise OptionError(f"model {spec.name!r}: {spec.data} holds texts; a 'checkpoint' with a tokenizer reads them")
    try:
        made = hf.AutoTokenizer.from_pretrained(spec.checkpoint, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise OptionError(f"model {spec.name!r}: {spec.checkpoint} has no tokenizer: {error}") from error
    return lambda text: made(text, add_special_tokens=False)["input_ids"]


def _transformers(what: str) -> Any:
    if importlib.util.find_spec("transformers") is None:
        raise OptionError(f"{what} needs transformers: pip install 'torchport[demo]'")
    import transformers

    return transformers
