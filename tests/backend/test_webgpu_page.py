"""Pages that run models in a browser: written here, and run by a headless Chromium where there is one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chromium
import pytest
import torch

from torchport.errors import TargetError, TorchportError
from torchport.plugin import Binary, page_writer, registry
from torchport.target import Target

pytest.importorskip("torchport_webgpu")
if "webgpu" not in registry().names:
    pytest.skip("torchport was installed before it had this backend: install it again", allow_module_level=True)

HERE = "document.body?.dataset.state"
FINISHED = f"['passed', 'failed', 'error'].includes({HERE}) && {HERE}"


class Layer(torch.nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.project, self.join = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, 2 * width), torch.nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.project(self.first(x)).chunk(3, -1)
        query, key, value = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in parts)
        found = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.join(found.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(torch.nn.functional.silu(self.up(self.second(x))))


class Transformer(torch.nn.Module):
    """A small one: its results are logits, and the likeliest token."""

    def __init__(self, tokens: int = 50, width: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(tokens, width)
        self.register_buffer(
            "rates", 10.0 ** -torch.linspace(-5, 4, width // 2)
        )  # sin and cos of small and large numbers
        self.layer, self.norm = Layer(width, heads), torch.nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = torch.arange(tokens.shape[1]).unsqueeze(1) * self.rates
        x = self.embed(tokens) + torch.cat([angles.sin(), angles.cos()], -1)
        logits = self.norm(self.layer(x)) @ self.embed.weight.T
        return logits, logits.argmax(-1)


def write(model: Any, args: tuple[Any, ...], folder: Path) -> Any:
    return page_writer(Target("webgpu")).write_page(model, args, folder, "a <small> model")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("page")
    model = Transformer().eval()
    write(model, (torch.randint(0, 50, (2, 40)),), folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Chromium]:
    if (path := chromium.executable()) is None:
        pytest.skip("there is no Chromium here")
    with chromium.Chromium(path) as found:
        found.open("about:blank")
        yield found


def test_a_small_transformer(page: Path, browser: chromium.Chromium) -> None:
    """The page's verdict, and its numbers, which are compared with the CPU's here."""
    torch.manual_seed(0)
    model = Transformer().eval()
    tokens = torch.randint(0, 50, (2, 40))
    with chromium.served(page) as address:
        browser.open(address)
        browser.wait(HERE)
        if "no WebGPU" in (text := browser.evaluate("document.body.innerText")) or "no adapter" in text:
            pytest.skip(text)
        assert browser.wait(FINISHED) == "passed", browser.evaluate("document.body.innerText")
        assert "a <small> model" in browser.evaluate("document.title")
        given = json.dumps([str(token) for token in tokens.roll(1, 1).flatten().tolist()])
        numbers = "(results) => results.map(({ data }) => Array.from(data, Number))"
        logits, best = browser.evaluate(f"model.run([BigInt64Array.from({given}.map(BigInt))]).then({numbers})")
        with torch.no_grad():
            expected, likeliest = model(tokens.roll(1, 1))
        assert (torch.tensor(logits).view_as(expected) - expected).abs().max() < 1e-5
        assert torch.equal(torch.tensor(best).view_as(likeliest).long(), likeliest)
        outside = "model.run([new BigInt64Array(80).fill(50n)]).catch((e) => e.message)"
        assert "an assertion failed: index out of bounds: 0 <= tmp" in browser.evaluate(outside)
        assert "give 640 bytes" in browser.evaluate("model.run([new Float32Array(80)]).catch((e) => e.message)")
        browser.evaluate("model.close()")
        closed = browser.evaluate("model.run([new BigInt64Array(80)]).catch((e) => e.message)")
        assert closed == "the model was closed"


def verdict(browser: chromium.Chromium, address: str) -> str:
    browser.open(address)
    assert browser.wait(FINISHED) == "error"
    found: str = browser.evaluate("document.getElementById('verdict').textContent")
    return found


def test_errors_are_sentences_on_the_page(page: Path, browser: chromium.Chromium, tmp_path: Path) -> None:
    """A folder that is opened as a file, a file that was changed, an adapter with too little."""
    assert "file://" in verdict(browser, (page / "index.html").as_uri())
    for file in page.rglob("*"):
        if file.is_file():
            (tmp_path / file.relative_to(page)).parent.mkdir(exist_ok=True)
            (tmp_path / file.relative_to(page)).write_bytes(file.read_bytes())
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with chromium.served(tmp_path) as address:
        said = verdict(browser, address)
        if "WebGPU" in said:
            pytest.skip(said)
        assert "weights.safetensors was changed since it was built" in said
    about = json.loads((tmp_path / "model.json").read_text())
    about["limits"]["maxStorageBuffersPerShaderStage"] = 99
    (tmp_path / "model.json").write_text(json.dumps(about))
    with chromium.served(tmp_path) as address:  # another origin, for which the browser has kept nothing
        assert "model.json was changed since it was built" in verdict(browser, address)
        index = tmp_path / "index.html"
        index.write_text(index.read_text().replace("data-sha256=", "data-other="))
        assert "the model needs maxStorageBuffersPerShaderStage of 99" in verdict(browser, address)


class Two(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sort(x * 2).values


class Counting(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += x
        return self.seen * 2


@pytest.mark.parametrize(
    "model, args, reason",
    [
        (Two(), torch.randn(9, 5000), r"aten\.sort\S* cannot run in a browser: .*\(File .*page\.py\", line"),
        (Counting(), torch.randn(4), "the model writes seen, and a page's weights do not change"),
        (lambda x: x.double() + 1, torch.randn(4), "no 64-bit floats"),
        (lambda x: x**2.5, torch.rand(4), "pow in kernel .* is computed in 64-bit floats"),
    ],
)  # fmt: skip
def test_what_cannot_run_in_a_browser_is_refused(model: Any, args: torch.Tensor, reason: str, tmp_path: Path) -> None:
    with pytest.raises(TorchportError, match=reason):
        write(model, (args,), tmp_path)
    assert not (tmp_path / "index.html").exists()


@dataclass
class Answer:
    doubled: torch.Tensor
    missing: torch.Tensor | None = None


def test_a_dataclass_is_taken_and_returned(tmp_path: Path) -> None:
    write(lambda given: Answer(given.doubled.relu() * 2), (Answer(torch.randn(4)),), tmp_path)
    about = json.loads((tmp_path / "model.json").read_text())
    assert [one["name"] for one in about["inputs"]] == ["given.doubled"] and len(about["outputs"]) == 1


def test_the_target_runs_nowhere_else() -> None:
    from torchport.plugin import backend_for

    browser = Target.parse("webgpu:browser")
    with pytest.raises(TargetError, match="runs in browsers, not in this process"):
        backend_for(browser).driver(browser)
    with pytest.raises(TargetError, match="target cpu runs in no browser"):
        page_writer(Target("cpu"))


def test_memories_share_buffers_when_they_do_not_live_at_once() -> None:
    from torchport_webgpu.browser.memory import lay_out

    sizes = {"a": 100, "b": 90, "c": 60, "d": 1000, "e": 40}
    lives = {"a": (0, 1), "b": (2, 4), "c": (1, 3), "d": (3, 5), "e": (4, 4)}
    laid = lay_out(sizes, lives, [{"d", "e"}], 7)
    assert laid.places["a"] == laid.places["b"] == (7, 0)  # b begins after a's end
    assert laid.places["c"][0] == 8  # c begins as a ends
    assert laid.places["d"] == (9, 0) and laid.places["e"] == (9, 1024)
    assert laid.sizes == (112, 64, 1280)


def test_no_launch_binds_more_buffers_than_every_browser() -> None:
    """Twelve tensors between launches, which one kernel reads: those lie in one buffer, at the offsets it is told."""
    from torchport_webgpu.browser.launches import Kernel, Launch
    from torchport_webgpu.browser.plan import Memory, plan

    def launch(*memories: str) -> Launch:
        numbers = range(len(memories))
        text = "".join(f"x = tp_get32_b{i}(p);" for i in numbers[1:]) + "tp_put32_b0(p, x);"
        about = {"lanes": 64, "sites": []}
        kernel = Kernel("made up", Binary(text.encode(), "wgsl", "tpk_made", metadata=about), ())
        return Launch(kernel, memories, (0,) * (3 + len(memories)), tuple(3 + i for i in numbers), (1, 1, 1))

    names = [f"m{i}" for i in range(12)]
    memories = [Memory("x", 100, "input"), *(Memory(name, 400, "between") for name in (*names, "out"))]
    made = plan([*(launch(name, "x") for name in names), launch("out", *names)], memories, ["out"])
    last = made.launches[-1]
    assert len(last["buffers"]) == 1 and made.sizes[last["buffers"][0]] == 13 * 512
    assert sorted(last["words"][3:]) == [512 * i for i in range(13)]
    assert made.limits["maxStorageBuffersPerShaderStage"] == 2
    assert len(made.shaders) == 2


@pytest.mark.parametrize("dims, groups, stride, padding, dilation", [(1, 2, 2, 1, 2), (2, 1, 1, 0, 1), (3, 4, 2, 1, 1)])
def test_convolutions_are_products(dims: int, groups: int, stride: int, padding: int, dilation: int) -> None:
    from torchport_webgpu.browser.convolution import convolution

    torch.manual_seed(0)
    x, weight = torch.randn(2, 8, *(9, 7, 6)[:dims]).double(), torch.randn(4, 8 // groups, *(3, 2, 3)[:dims]).double()
    bias = torch.randn(4).double()
    window = [stride], [padding], [dilation]
    plain = (torch.conv1d, torch.conv2d, torch.conv3d)[dims - 1]
    torch.testing.assert_close(convolution(x, weight, bias, *window, groups), plain(x, weight, bias, *window, groups))
    if stride == 1:
        found = convolution(x[0], weight, bias, [1], "same", [dilation], groups)
        torch.testing.assert_close(found, plain(x[0], weight, bias, 1, "same", dilation, groups))


def test_a_convolution_is_exported(tmp_path: Path) -> None:
    made = write(torch.nn.Conv2d(2, 3, 3, padding=1).eval(), (torch.randn(1, 2, 6, 5),), tmp_path)
    assert made.launches >= 2
    about = json.loads((tmp_path / "model.json").read_text())
    assert [output["shape"] for output in about["outputs"]] == [[1, 3, 6, 5]]
