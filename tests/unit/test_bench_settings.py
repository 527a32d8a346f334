"""tools/model_bench/settings.py: steady state of several result files in one table."""

from __future__ import annotations

from typing import Any

import pytest
from model_bench.settings import draw, markdown, measured


def file(model: str, ours: list[float], theirs: list[float], **other: Any) -> dict[str, Any]:
    backends = {"torchport": {"steady_s": ours}, "inductor": {"steady_s": theirs}}
    row = {"model": model, "dtype": other.pop("dtype", "float32"), "train": False, "backends": backends}
    machine = {"processor": other.pop("processor", "A"), "torch": "2.13.0", "instructions": "AVX2"}
    return {"date": "2026-12-01", "machine": machine, "threads": 1, "clock": "cpu", "results": [row], **other}


FIRST = file("bert", [1.0, 2.0, 1.0], [1.5, 3.0, 1.4])


def test_median_of_rounds_and_means() -> None:
    # The rounds' ratios are 1.5, 1.5 and 1.4.
    text = markdown([FIRST, file("vit", [1.0] * 3, [0.96] * 3), file("vit", [1.0] * 3, [2.0] * 3, threads=2)])
    assert "| model | fp32, AVX2, 1 thread | fp32, AVX2, 2 threads |" in text
    assert "| bert | 1.50 ±0.05 (1e+03) |  |" in text
    assert "| geometric mean (models) | **1.20** (2) | **2.00** (1) |" in text
    assert "| slowest | 0.96 (vit) | 2.00 (vit) |" in text


def test_a_later_file_replaces_an_earlier_one() -> None:
    (ratios,) = measured([FIRST, file("bert", [1.0] * 3, [1.1] * 3)]).values()
    assert ratios["bert"].value == pytest.approx(1.1)


def test_two_rounds_are_no_result() -> None:
    assert measured([file("bert", [1.0, 1.0], [2.0, 2.0])]) == {}


def test_two_machines_do_not_share_a_table() -> None:
    with pytest.raises(ValueError, match="one machine"):
        measured([FIRST, file("bert", [1.0] * 3, [1.0] * 3, processor="B")])


def test_the_picture_names_every_setting(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib")
    draw([FIRST, file("vit", [1.0] * 3, [0.9] * 3, dtype="bfloat16")], tmp_path / "steady.svg")
    text = (tmp_path / "steady.svg").read_text()
    assert "fp32, AVX2, 1 thread" in text
    assert "bf16, AVX2, 1 thread" in text
