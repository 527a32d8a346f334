"""Options and modes of torch.compile: what is valid, and what the errors say."""

from __future__ import annotations

import copy
import re
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config

from torchport.compile import request
from torchport.errors import OptionError, TargetError


def test_defaults() -> None:
    checked = request(None, None)
    assert (str(checked.target), checked.fallback, checked.options) == ("cpu", "auto", {})


def test_inductor_options_and_modes_pass_through() -> None:
    checked = request("max-autotune-no-cudagraphs", {"epilogue-fusion": False, "triton.max_tiles": 2})
    assert checked.options["max_autotune"] is True
    assert checked.options["epilogue_fusion"] is False
    assert checked.settings().options["triton.max_tiles"] == 2


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"targett": "cpu"}, OptionError, "did you mean 'target'"),
        ({"max_autotun": True}, OptionError, "did you mean 'max_autotune'"),
        ({"qqqq": 1}, OptionError, "torchport's are target, fallback"),
        ({"max_autotune": 3}, OptionError, "takes a value of type bool, not int"),
        ({"freezing": True}, OptionError, r"torch\._inductor\.config\.freezing = True before"),
        ({"fallback": "maybe"}, OptionError, "'auto', 'eager', 'error'"),
        ({"target": "gpu9"}, TargetError, "installed backends: .*cpu"),
        ({"target": "cpu:z80"}, TargetError, "valid here: cpu"),
        ({"target": "No!"}, TargetError, "expected a backend's name"),
    ],
)
def test_errors_say_what_is_valid(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        request(None, options)


def test_unknown_mode() -> None:
    with pytest.raises(OptionError, match=r"modes: default, .*max-autotune"):
        request("fastest", None)


def test_the_page_lists_every_mode_that_the_error_does() -> None:
    with pytest.raises(OptionError) as caught:
        request("fastest", None)
    page = (Path(__file__).parents[2] / "docs" / "options.md").read_text()
    (sentence,) = re.findall(r"`mode` is one of Inductor's: (.*?)\. As", page, re.DOTALL)
    named = re.sub(r"\(.*?\)", "", sentence, flags=re.DOTALL)  # what is said about a mode may name another
    assert sorted(re.findall(r"`([\w-]+)`", named)) == str(caught.value).partition("modes: ")[2].split(", ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("target", ["cuda", "cuda:90", "cuda:1", "hip", "hip:gfx942", "hip:gfx1"])
def test_a_target_that_cannot_run_here_says_that_first(target: str) -> None:
    with pytest.raises(
        TargetError, match=f"^target {target} does not run here: PyTorch sees no .* GPU; `torchport targets`"
    ):
        request(None, {"target": target})


@pytest.mark.usefixtures("no_fallback")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("freezing", [False, True])
def test_freezing_takes_weights_as_constants(dtype: torch.dtype, freezing: bool) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(48, 96), torch.nn.GELU(), torch.nn.Linear(96, 32)).eval().to(dtype)
    x = torch.randn(16, 48, dtype=dtype)
    compiled = torch.compile(model, backend="torchport")

    def error(result: torch.Tensor, exact: torch.Tensor) -> float:
        return float((result - exact).abs().max())

    with torch.no_grad():
        exact, allowed = _float64(model, x), 2 * error(model(x), _float64(model, x))
        with torch._inductor.config.patch(freezing=freezing):
            assert error(compiled(x), exact) <= allowed
        model[0].weight.mul_(2)
        assert error(compiled(x), exact if freezing else _float64(model, x)) <= allowed * (1 if freezing else 2)


def _float64(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return copy.deepcopy(model).double()(x.double())


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"falback": "error"}, OptionError, "did you mean 'fallback'"),
        ({"target": "gpu9"}, TargetError, "installed backends"),
    ],
)
def test_the_user_sees_one_sentence(options: dict[str, Any], error: type[Exception], says: str) -> None:
    """Not wrapped in BackendCompilerFailed: what is raised is torchport's error."""
    with pytest.raises(error, match=says) as caught:
        torch.compile(lambda x: x + 1, backend="torchport", options=options)(torch.ones(4))
    assert "BackendCompilerFailed" not in "".join(traceback.format_exception(caught.value))
