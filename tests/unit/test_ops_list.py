"""``torchport ops list`` and the table of docs/operators.md, which is its output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import torchport.ops
from torchport.cli.app import app
from torchport.cli.ops import markdown_table
from torchport.conformance.certificate import SCHEMA
from torchport.errors import OptionError
from torchport.ops.registry import operators
from torchport.signing import content_hash

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"


def test_the_page_has_the_operators_that_there_are() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text.partition("--markdown -->\n")[2].partition("\n<!-- end")[0]
    assert table == markdown_table(), "run: torchport ops list --markdown"


@pytest.mark.parametrize("options", [(), ("--target", "cpu"), ("--markdown",)])
def test_the_command_lists_every_operator(options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    done = CliRunner().invoke(app, ["ops", "list", *options])
    assert done.exit_code == 0, done.output
    for operator in operators():
        assert operator.name in done.output
        assert operator.schema in done.output


def test_a_certificate_shows_grades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    content = {
        "schema": SCHEMA, "target": "cpu", "level": "full", "grade": "FAIL",
        "failures": [{"case": "library/rope/fp16/scalar/samples"}],
        "refused": {"library/rope/bf16/scalar/samples": "no bf16"},
        "worst": {"library/rope/fp32/scalar/samples": 0.5, "library/rope/fp16/scalar/samples": 3.0},
    }  # fmt: skip
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps({**content, "sha256": content_hash(content)}))
    done = CliRunner().invoke(app, ["ops", "list", "--target", "cpu", "--certificate", str(path)])
    lines = {line.split()[1]: line for line in done.output.splitlines() if len(line.split()) > 2}
    assert "FAIL fp16; refused bf16; PASS fp32" in lines["rope"]
    assert "UNTESTED" in lines["softmax"]
    other = CliRunner().invoke(app, ["ops", "list", "--target", "null", "--certificate", str(path)])
    assert isinstance(other.exception, OptionError)


def test_functions_and_operators_have_the_same_names() -> None:
    names = {operator.name for operator in operators()}
    assert set(torchport.ops.__all__) - names == {"int4_pack", "patch", "register_attention"}  # which prepare
    for operator in operators():
        function = getattr(torchport.ops, operator.name)
        keywords = operator.name in ("flash_attention", "piecewise_attention", "paged_attention")
        assert keywords or function is operator.call
        assert isinstance(getattr(torch.ops.torchport, operator.name), torch._ops.OpOverloadPacket)
        assert operator.call.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'no_such'"):
        torchport.ops.no_such  # noqa: B018
