"""A suite: models, sizes, seeds, data and targets, read from a TOML file (docs/eval.md)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from torchport.errors import OptionError
from torchport.evaluation.models.entry import KINDS, SIZES
from torchport.schema import Mismatch, conform

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["DEFAULT", "DTYPES", "ModelSpec", "Suite", "default_suite", "load_suite"]

DEFAULT = "default"
"""The suite that comes with torchport."""

DTYPES = ("float32", "bfloat16", "float16")
_ANY_KIND = ("", *KINDS)


@dataclass(frozen=True)
class ModelSpec:
    """One model of a suite.

    name: of the default suite's, or any other with ``make`` or ``checkpoint``.
    make: FILE.py:FUNCTION, which returns (model, inputs).
    checkpoint: a local folder that ``transformers`` wrote (safetensors).
    weights: a local safetensors file of ``make``'s state dictionary.
    data: a local file of inputs: jsonl or parquet of texts or token ids, or safetensors of the model's inputs.
    column: of ``data``, with the texts or token ids.
    output: the first key of the result to compare; by default of the entry, or the first tensor of floats.
    kind: what it answers (``torchport.evaluation.models.entry.KINDS``); by default from the entry, or ``values``.
    area: what the report groups it by.
    size: of a model of the default suite.
    dtype: of weights and inputs.
    seed: of weights and inputs.
    batches: how many batches of inputs are run.
    batch: examples of a batch, and tokens: of an example, of ``data``.
    """

    name: str
    make: str = ""
    checkpoint: str = ""
    weights: str = ""
    data: str = ""
    column: str = "text"
    output: str = ""
    kind: Annotated[str, _ANY_KIND] = ""
    area: str = ""
    size: Annotated[str, SIZES] = "small"
    dtype: Annotated[str, DTYPES] = "float32"
    seed: int = 0
    batches: int = 8
    batch: int = 2
    tokens: int = 128

    @property
    def label(self) -> str:
        """Its name in the report, unique in a suite."""
        more = [self.size if self.size != SIZES[0] else "", self.dtype if self.dtype != DTYPES[0] else ""]
        return " ".join([self.name, *filter(None, more), *([f"seed {self.seed}"] if self.seed else ())])


@dataclass(frozen=True)
class Suite:
    """Models by targets.

    targets: as users write them (``torchport.evaluation.targets``).
    reference: the target that others are compared with.
    timeout: seconds for one cell.
    memory: bytes of resident memory that a cell may have.
    rounds: of interleaved timing.
    left_out: models that are missing, and why.
    """

    name: str
    models: tuple[ModelSpec, ...]
    targets: tuple[str, ...] = ("cpu",)
    reference: str = "cpu"
    timeout: float = 300.0
    memory: int = 8 << 30
    rounds: int = 15
    left_out: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """JSON values, with absolute paths as they are."""
        return asdict(self)

    def only(self, names: Sequence[str]) -> Suite:
        """With the models of these names alone. Raises OptionError for one that it does not have."""
        known = list(dict.fromkeys(model.name for model in self.models))
        for name in names:
            if name not in known:
                why = f": {self.left_out[name]}" if name in self.left_out else f"; it has {', '.join(known)}"
                raise OptionError(f"the suite {self.name} has no model {name!r}{why}")
        return replace(self, models=tuple(model for model in self.models if model.name in names))


def default_suite() -> Suite:
    """Every model that comes with torchport, in its small size."""
    from torchport.evaluation.models import left_out, names

    missing = {name: "transformers is not installed: pip install 'torchport[demo]'" for name in left_out()}
    return Suite(DEFAULT, tuple(ModelSpec(name) for name in names()), left_out=missing)


@dataclass(frozen=True)
class _Entry:
    """A table ``[[model]]``: a ModelSpec with several sizes, types and seeds."""

    name: str
    make: str = ""
    checkpoint: str = ""
    weights: str = ""
    data: str = ""
    column: str = "text"
    output: str = ""
    kind: Annotated[str, _ANY_KIND] = ""
    area: str = ""
    sizes: tuple[Annotated[str, SIZES], ...] = ("small",)
    dtypes: tuple[Annotated[str, DTYPES], ...] = ("float32",)
    seeds: tuple[int, ...] = (0,)
    batches: int = 8
    batch: int = 2
    tokens: int = 128


@dataclass(frozen=True)
class _File:
    name: str = ""
    targets: tuple[str, ...] = ("cpu",)
    reference: str = "cpu"
    timeout: float = 300.0
    memory: str = "8G"
    rounds: int = 15
    default: bool = False
    model: tuple[_Entry, ...] = ()


def load_suite(place: str) -> Suite:
    """The suite in a TOML file, or ``default``. Paths in it are relative to the file. Raises OptionError."""
    if place == DEFAULT:
        return default_suite()
    path = Path(place)
    try:
        content = conform(tomllib.loads(path.read_text()), _File, str(path))
    except OSError as error:
        raise OptionError(
            f"{place} cannot be read: {error.strerror}; a suite is a TOML file, or {DEFAULT!r}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, Mismatch) as error:
        raise OptionError(f"{path} is no suite: {error}") from error
    return _suite(content, path)


def _suite(content: _File, path: Path) -> Suite:
    from torchport.config import parse_size

    base = default_suite()
    known = {model.name for model in base.models}
    models = list(base.models) if content.default else []
    left_out = dict(base.left_out) if content.default else {}
    for entry in content.model:
        own = bool(entry.make or entry.checkpoint)
        if not own and entry.name in base.left_out:
            left_out[entry.name] = base.left_out[entry.name]
            continue
        if not own and entry.name not in known:
            raise OptionError(
                f"{path}: model {entry.name!r} is none of torchport's ({', '.join(sorted(known))}) and names neither "
                "'make' nor 'checkpoint'"
            )
        if told := _unused(entry):
            raise OptionError(f"{path}: model {entry.name!r}: {told}")
        models += _expanded(entry, path.absolute().parent)
    labels = [model.label for model in models]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise OptionError(f"{path}: the model {twice!r} is there twice")
    if not models and not left_out:
        raise OptionError(f"{path} has no models: a table [[model]] names one, 'default = true' takes torchport's")
    try:
        memory = parse_size(content.memory)
    except ValueError as error:
        raise OptionError(f"{path}: memory {content.memory!r} is not valid; expected {error}") from error
    if not content.timeout > 0 or memory < 1 or content.rounds < 1:
        raise OptionError(f"{path}: 'timeout', 'memory' and 'rounds' must be positive")
    return Suite(
        content.name or path.stem, tuple(models), content.targets, content.reference, content.timeout, memory,
        content.rounds, left_out,
    )  # fmt: skip


def _unused(entry: _Entry) -> str:
    """What an entry asks for that a model of its kind does not take, in words; empty if nothing."""
    if not entry.name.strip() or not entry.name.isprintable():
        return "a name is text of printable characters"
    if entry.make and entry.checkpoint:
        return "it names 'make' and 'checkpoint', which are two models"
    if entry.checkpoint and entry.weights:
        return "a checkpoint has its weights: 'weights' are of a model of 'make'"
    if entry.make or entry.checkpoint:
        return "'sizes' are of torchport's models" if tuple(entry.sizes) != SIZES[:1] else ""
    given = [name for name in ("weights", "data", "output") if getattr(entry, name)]
    return f"it is torchport's, with random weights and inputs: it takes no {given[0]!r}" if given else ""


def _expanded(entry: _Entry, folder: Path) -> list[ModelSpec]:
    if min(entry.batches, entry.batch, entry.tokens) < 1:
        raise OptionError(f"model {entry.name!r}: 'batches', 'batch' and 'tokens' must be 1 or more")

    def placed(text: str) -> str:
        return str(folder / Path(text).expanduser()) if text else ""

    return [
        ModelSpec(
            entry.name, placed(entry.make), placed(entry.checkpoint), placed(entry.weights), placed(entry.data),
            entry.column, entry.output, entry.kind, entry.area, size, dtype, seed, entry.batches, entry.batch,
            entry.tokens,
        )
        for size in entry.sizes
        for dtype in entry.dtypes
        for seed in entry.seeds
    ]  # fmt: skip
