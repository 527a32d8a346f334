"""The phases as a picture: one lane for the main process and one for each other, by time."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from torchport.cli.profile.measured import Profile, rows_of
from torchport.phases import MAIN, Phase, Span

__all__ = ["page", "timeline"]

_WIDTH, _LEFT, _BAR, _GAP = 1200, 150, 16, 26
_LEAST = 0.6  # pixels: what is narrower is left to the phase around it
_COLOURS = {
    Phase.DYNAMO: "#4e79a7",
    Phase.GUARDS: "#86a8c9",
    Phase.AOT: "#59a14f",
    Phase.KEYS: "#b6992d",
    Phase.GRAPH_PASSES: "#8cd17d",
    Phase.LOWERING: "#f1ce63",
    Phase.SCHEDULING: "#f28e2b",
    Phase.TILINGS: "#d37295",
    Phase.CODE: "#ffbe7d",
    Phase.FRONTEND: "#b07aa1",
    Phase.PASSES: "#e15759",
    Phase.LLVM: "#9d7660",
    Phase.CXX: "#d4a6c8",
    Phase.LOADING: "#499894",
    Phase.WAITING: "#c9c9c9",
    Phase.IMPORTS: "#79706e",
    Phase.RUNNING: "#a0cbe8",
    Phase.REST: "#e3e3e3",
}


def timeline(model: str, profiles: Sequence[Profile]) -> str:
    """An SVG document. All runs have one scale; a bar's title says what it is and how long it took."""
    seconds = max(one.measured.wall_s for one in profiles)
    scale = (_WIDTH - _LEFT - 10) / seconds
    used = [phase for phase in Phase if any(span.phase is phase for one in profiles for span in one.spans)]
    parts, y = _legend(used)
    for one in profiles:
        y += 22
        parts.append(
            f'<text x="4" y="{y}" font-weight="bold">{escape(f"{one.backend}, {one.start}")}: '
            f"{one.measured.wall_s:.2f} s</text>"
        )
        y += 8
        for lane in dict.fromkeys([MAIN, *(span.lane for span in one.spans)]):
            spans = [span for span in one.spans if span.lane == lane and span.seconds * scale >= _LEAST]
            parts.append(f'<text x="4" y="{y + 12}">{escape(lane)}</text>')
            parts += [_bar(span, scale, y) for span in sorted(spans, key=lambda span: span.depth)]
            y += _GAP
    parts += _axis(seconds, scale, y)
    title = escape(f"first call of {model}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{title}" viewBox="0 0 {_WIDTH} {y + 24}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="4" y="14" font-size="13">{title}</text>{"".join(parts)}</svg>\n'
    )


def page(model: str, profiles: Sequence[Profile]) -> str:
    """An HTML document with the timeline and the table."""
    head = "".join(f"<th>{escape(one.backend)}, s<th>CPU, s" for one in profiles)
    rows = [
        f"<tr><th>{escape(phase.value)}{''.join(f'<td>{value:.3f}' for value in values)}"
        for phase, values in rows_of(profiles)
    ]
    sums = "".join(f"<td>{one.measured.wall_s:.3f}<td>{one.measured.cpu_s:.3f}" for one in profiles)
    style = "body{font:14px sans-serif;margin:2em}td{text-align:right}th{text-align:left}td,th{padding:1px 10px}"
    return (
        f"<!doctype html><meta charset=utf-8><title>{escape(model)}</title><style>{style}</style>"
        f"{timeline(model, profiles)}<table><tr><th>phase{head}{''.join(rows)}<tr><th>first call{sums}</table>\n"
    )


def _legend(phases: Sequence[Phase]) -> tuple[list[str], int]:
    parts, x, y = [], 4, 32
    for phase in phases:
        width = 24 + 7 * len(phase.value)
        if x + width > _WIDTH:
            x, y = 4, y + 16
        parts.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{_COLOURS[phase]}"/>')
        parts.append(f'<text x="{x + 14}" y="{y}">{escape(phase.value)}</text>')
        x += width
    return parts, y


def _bar(span: Span, scale: float, y: int) -> str:
    title = f"{span.phase.value}{f' ({span.detail})' if span.detail else ''}: {span.seconds * 1e3:.1f} ms"
    return (
        f'<rect x="{_LEFT + span.start * scale:.1f}" y="{y}" width="{span.seconds * scale:.1f}" height="{_BAR}" '
        f'fill="{_COLOURS[span.phase]}"><title>{escape(title)}</title></rect>'
    )


def _axis(seconds: float, scale: float, y: int) -> list[str]:
    step = next(one for one in (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 50, 100, 1e9) if seconds / one <= 20)
    return [
        f'<text x="{_LEFT + tick * step * scale:.1f}" y="{y + 12}" text-anchor="middle">{tick * step:g} s</text>'
        for tick in range(int(seconds / step) + 1)
    ]
