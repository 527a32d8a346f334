"""Tasks of lm-eval on torchport's targets: its model class, and two targets compared question by question.

Made for lm-eval 0.4 (``lm_eval.models.huggingface.HFLM``), which is imported when it is asked for.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from torchport.errors import OptionError
from torchport.precision.impacts import Answers, answered
from torchport.precision.ways import way_of

__all__ = ["TaskResult", "compare_tasks", "model_class"]

NAME = "torchport"
"""What lm-eval calls the model class: ``--model torchport``, once ``model_class`` was called."""


@functools.cache
def model_class() -> Any:
    """lm-eval's model class whose forward pass is compiled by torchport; it is registered as ``torchport``.

    Its constructor takes ``pretrained``, a local folder or a model, ``way``, what ``torchport.precision.ways.way_of``
    takes (``cpu``, ``opencl``, ``h100(emulated)``), and what HFLM takes. Tasks of log likelihoods run; those that
    generate text are refused, as HFLM would run the model without the compiler.

    Raises OptionError if lm-eval is not installed.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise OptionError("tasks need lm-eval: pip install 'lm-eval[hf]'")
    from lm_eval.api.registry import register_model
    from lm_eval.models.huggingface import HFLM

    class TorchportLM(HFLM):  # type: ignore[misc]  # lm-eval has no types
        """A causal language model of transformers, called through torchport."""

        def __init__(self, pretrained: Any, way: str = "cpu", **options: Any) -> None:
            model = _local(pretrained) if isinstance(pretrained, (str, Path)) else pretrained
            if isinstance(pretrained, (str, Path)):
                options.setdefault("tokenizer", str(pretrained))
            super().__init__(pretrained=model, **options)
            chosen = way_of(way).options
            self.called: Any = model
            if chosen is not None:  # lengths differ from call to call
                self.called = torch.compile(model, backend="torchport", options=dict(chosen), dynamic=True)

        def _model_call(self, inps: torch.Tensor, attn_mask: Any = None, labels: Any = None) -> torch.Tensor:
            if attn_mask is not None or labels is not None:
                raise OptionError("torchport's model class is for causal models")
            with torch.no_grad():
                logits: torch.Tensor = self.called(inps).logits
            return logits

        def _model_generate(self, *args: Any, **kwargs: Any) -> Any:
            raise OptionError("tasks that generate text are not run through torchport; those of log likelihoods are")

    return register_model(NAME)(TorchportLM)


def _local(folder: str | Path) -> Any:
    from torchport.evaluation.local import checkpoint
    from torchport.evaluation.suite import ModelSpec

    return checkpoint(ModelSpec(Path(folder).name, checkpoint=str(folder))).eval()


@dataclass(frozen=True)
class TaskResult:
    """A task on two ways to run a model: the metric of both, and their answers compared, if each is right or wrong."""

    task: str
    metric: str
    a: float
    b: float
    answers: Answers | None


def compare_tasks(
    pretrained: Any, tasks: Sequence[str], a: str = "cpu", b: str = "h100(emulated)", *, metric: str = "acc",
    points: float = 2.0, limit: int | None = None, batch_size: int = 8, **options: Any,
) -> list[TaskResult]:  # fmt: skip
    """Run lm-eval's ``tasks`` on the ways ``a`` and ``b``, and compare their answers to the same questions.

    limit: the first so many questions. options: of ``lm_eval.simple_evaluate``, such as ``task_manager``. points: of
    the sample size that is given. Raises OptionError for a task without ``metric``, and without lm-eval.
    """
    made = model_class()
    from lm_eval import simple_evaluate

    found = []
    for way in (a, b):
        torch.compiler.reset()
        model = made(pretrained, way=way, batch_size=batch_size)
        found.append(simple_evaluate(model=model, tasks=list(tasks), limit=limit, log_samples=True, **options))
    first, second = (one["samples"] for one in found)
    return [_result(task, metric, first[task], second[task], points) for task in first]


def _result(
    task: str, metric: str, a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]], points: float
) -> TaskResult:
    both = []
    for samples in (a, b):
        ordered = sorted(samples, key=lambda one: int(one["doc_id"]))
        if any(metric not in one for one in ordered):
            raise OptionError(f"task {task} has no metric {metric!r} of each question")
        both.append(torch.tensor([float(one[metric]) for one in ordered], dtype=torch.float64))
    x, y = both
    right = torch.ones_like(x, dtype=torch.int64)
    shares = all(bool(((one == 0) | (one == 1)).all()) for one in both)
    answers = answered((x.long(), right), (y.long(), right), points) if shares else None
    return TaskResult(task, metric, float(x.mean()), float(y.mean()), answers)
