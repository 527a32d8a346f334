"""The result of ``torchport.explain``: how a model was compiled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torchport.runtime.events import Avoided, Event, Fallback, Graph, GraphBreak, Kernel, Transfer, Widened

__all__ = ["Report", "counted"]


def counted(number: int, noun: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass(frozen=True)
class Report:
    """What happened in one compilation, each kind in order.

    graphs: the graphs that were compiled.
    kernels: the kernels that were compiled.
    graph_breaks: where Dynamo split the model, and why.
    fallbacks: operations left to aten, and why.
    transfers: copies between host and device, for devices with memory of their own.
    avoided: kernels changed because they are in quarantine.
    widened: kernels computed in higher precision, for the option ``precision``.
    """

    graphs: tuple[Graph, ...]
    kernels: tuple[Kernel, ...]
    graph_breaks: tuple[GraphBreak, ...]
    fallbacks: tuple[Fallback, ...]
    transfers: tuple[Transfer, ...] = ()
    avoided: tuple[Avoided, ...] = ()
    widened: tuple[Widened, ...] = ()

    @classmethod
    def of(cls, events: Iterable[Event]) -> Report:
        """The report on ``events``."""
        every = tuple(events)
        return cls(
            tuple(e for e in every if isinstance(e, Graph)),
            tuple(e for e in every if isinstance(e, Kernel)),
            tuple(e for e in every if isinstance(e, GraphBreak)),
            tuple(e for e in every if isinstance(e, Fallback)),
            tuple(e for e in every if isinstance(e, Transfer)),
            tuple(e for e in every if isinstance(e, Avoided)),
            tuple(e for e in every if isinstance(e, Widened)),
        )

    def __str__(self) -> str:
        lines = [
            f"{counted(len(self.graphs), 'graph')}, {counted(len(self.kernels), 'kernel')}, "
            f"{counted(len(self.graph_breaks), 'graph break')}, {counted(len(self.fallbacks), 'fallback')}"
        ]
        for title, events in (
            ("graphs", self.graphs),
            ("kernels", self.kernels),
            ("graph breaks", self.graph_breaks),
            ("fallbacks", self.fallbacks),
            ("transfers", self.transfers),
            ("in quarantine", self.avoided),
            ("in higher precision", self.widened),
        ):
            if events:
                lines += [f"{title}:", *(f"  {event}" for event in events)]
        return "\n".join(lines)
