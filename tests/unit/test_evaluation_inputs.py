"""Models, weights, data and tasks of the user's own in ``torchport eval``."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from torchport.errors import OptionError
from torchport.evaluation import harness, local
from torchport.evaluation.loading import load
from torchport.evaluation.measure import errors_of
from torchport.evaluation.suite import ModelSpec, load_suite

MAKE = """
import dataclasses, torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.a(x)

def make():
    return Net(), (torch.zeros(2, 4),)

class Odd(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls.add_(1)
        x.mul_(2)
        return Both(x + self.calls, {"deep": [torch.fft.fft(x), x > 0]})

@dataclasses.dataclass
class Both:
    a: torch.Tensor
    b: dict

def odd():
    return Odd(), (torch.randn(2, 4),)

def function():
    return (lambda x: x), (torch.zeros(2),)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(MAKE)
    return tmp_path


def spec(folder: Path, **more: Any) -> ModelSpec:
    return ModelSpec("net", make=f"{folder / 'net.py'}:make", **more)


def test_weights_and_inputs_come_from_safetensors(folder: Path) -> None:
    weights = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.ones(3)}
    save_file(weights, folder / "w.safetensors")
    inputs = torch.randn(7, 4)
    save_file({"x": inputs}, folder / "x.safetensors")
    found = load(spec(folder, weights=str(folder / "w.safetensors"), data=str(folder / "x.safetensors"), batch=3))
    assert len(found.calls) == 2  # of 3; the seventh example is no batch
    result = found.run(found.module, found.calls[1])["0"]
    assert torch.allclose(result, inputs[3:6] @ weights["a.weight"].T + 1)
    assert found.truth()[1]["0"].dtype == torch.float64
    half = load(spec(folder, data=str(folder / "x.safetensors"), dtype="bfloat16"))
    assert half.run(half.module, half.calls[0])["0"].dtype == torch.bfloat16


def test_what_does_not_fit_is_refused(folder: Path) -> None:
    save_file({"a.weight": torch.zeros(3, 4)}, folder / "w.safetensors")
    with pytest.raises(OptionError, match=r"missing a\.bias"):
        load(spec(folder, weights=str(folder / "w.safetensors")))
    save_file({"a.weight": torch.zeros(2, 2), "a.bias": torch.zeros(3)}, folder / "w.safetensors")
    with pytest.raises(OptionError, match="do not fit"):
        load(spec(folder, weights=str(folder / "w.safetensors")))
    (folder / "w.safetensors").write_bytes(b"no tensors")
    with pytest.raises(OptionError, match="cannot be read"):
        load(spec(folder, weights=str(folder / "w.safetensors")))
    (folder / "x.csv").write_text("1,2")
    with pytest.raises(OptionError, match="no known form"):
        load(spec(folder, data=str(folder / "x.csv")))
    save_file({"x": torch.zeros(3, 4), "y": torch.zeros(4, 4)}, folder / "x.safetensors")
    with pytest.raises(OptionError, match="as many"):
        load(spec(folder, data=str(folder / "x.safetensors")))
    with pytest.raises(OptionError, match="needs a torch"):
        load(ModelSpec("net", make=f"{folder / 'net.py'}:function"))


def test_token_ids_are_cut_into_examples(folder: Path) -> None:
    rows = [{"ids": list(range(7))}, {"ids": [9]}, {"ids": list(range(10, 16))}]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    wanted = ModelSpec("t", data=str(folder / "t.jsonl"), column="ids", batch=2, tokens=3, batches=9)
    found = [one["input_ids"].tolist() for one in local.batches(wanted, None)]  # type: ignore[call-overload]
    assert found == [[[0, 1, 2], [3, 4, 5]], [[10, 11, 12], [13, 14, 15]]]
    with pytest.raises(OptionError, match="no column 'text'; it has ids"):
        local.batches(ModelSpec("t", data=str(folder / "t.jsonl")), None)
    (folder / "t.jsonl").write_text("{")
    with pytest.raises(OptionError, match="cannot be read"):
        local.batches(wanted, None)


def test_parquet_needs_datasets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OptionError, match="pip install datasets"):
        local.batches(ModelSpec("t", data=str(folder / "t.parquet")), None)


def test_a_checkpoint_with_its_tokenizer(folder: Path) -> None:
    hf = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate("[UNK] a b c d".split())}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    hf.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(folder / "model")
    config = hf.GPT2Config(vocab_size=5, n_embd=8, n_layer=1, n_head=2, n_positions=16)
    hf.GPT2LMHeadModel(config).save_pretrained(folder / "model")
    (folder / "t.jsonl").write_text(json.dumps({"text": "a b c d a b c d"}))
    (folder / "suite.toml").write_text(
        '[[model]]\nname = "mine"\ncheckpoint = "model"\ndata = "t.jsonl"\nbatch = 2\ntokens = 4\n'
    )
    (chosen,) = load_suite(str(folder / "suite.toml")).models
    found = load(chosen)
    assert found.kind == "tokens" and not found.module.training
    assert [one.kwargs["input_ids"].tolist() for one in found.calls] == [[[1, 2, 3, 4], [1, 2, 3, 4]]]
    assert found.run(found.module, found.calls[0])["logits"].shape == (2, 4, 5)
    with pytest.raises(OptionError, match="config"):
        load(ModelSpec("mine", checkpoint=str(folder / "nothing"), data="x.jsonl"))
    for file in (folder / "model").glob("*.safetensors"):  # pickles are not read
        torch.save(hf.GPT2LMHeadModel(config).state_dict(), folder / "model" / "pytorch_model.bin")
        file.unlink()
    with pytest.raises(OptionError, match="cannot be loaded"):
        load(chosen)


class Harness:
    """Stands for lm_eval.models.huggingface.HFLM."""

    def __init__(self, pretrained: Any, **options: Any) -> None:
        self._model, self.options = pretrained, options


@pytest.fixture
def lm_eval(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stand-in for lm-eval that answers as the names of ways say; what was registered."""
    registered: dict[str, Any] = {}
    names = ("lm_eval", "lm_eval.api", "lm_eval.api.registry", "lm_eval.models", "lm_eval.models.huggingface")
    modules: dict[str, Any] = {name: types.ModuleType(name) for name in names}

    def register(name: str) -> Any:
        return lambda kind: registered.setdefault(name, kind)

    def evaluate(model: Any, tasks: list[str], **_: Any) -> dict[str, Any]:
        tokens = torch.zeros(1, 2, dtype=torch.int64)
        right = model._model_call(tokens).shape == (1, 2, 5)
        wrong = model.called is not model._model  # one question in ten, where the model is compiled
        samples = [{"doc_id": i, "acc": float(right and not (wrong and i % 10 == 0))} for i in range(40)]
        return {"samples": {task: samples for task in tasks}}

    modules["lm_eval.api.registry"].register_model = register
    modules["lm_eval.models.huggingface"].HFLM = Harness
    modules["lm_eval"].simple_evaluate = evaluate
    for name, module in modules.items():
        module.__spec__ = types.SimpleNamespace(name=name)
        monkeypatch.setitem(sys.modules, name, module)
    harness.model_class.cache_clear()
    return registered


class Logits(torch.nn.Module):
    def forward(self, ids: torch.Tensor) -> Any:
        return types.SimpleNamespace(logits=torch.nn.functional.one_hot(ids, 5).float() + 1)


def test_tasks_of_a_stand_in(lm_eval: dict[str, Any]) -> None:
    (found,) = harness.compare_tasks(Logits(), ["quiz"], a="eager", b="cpu")
    assert lm_eval.keys() == {"torchport"} and (found.task, found.a, found.b) == ("quiz", 1.0, 0.9)
    assert found.answers is not None and (found.answers.right_a, found.answers.right_b) == (40, 36)
    assert found.answers.p == pytest.approx(0.125) and found.answers.needed > 40
    with pytest.raises(OptionError, match="no metric 'f1'"):
        harness.compare_tasks(Logits(), ["quiz"], a="eager", b="eager", metric="f1")
    with pytest.raises(OptionError, match="generate"):
        lm_eval["torchport"](Logits(), way="eager")._model_generate()
    harness.model_class.cache_clear()


def test_tasks_need_lm_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    harness.model_class.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OptionError, match="pip install"):
        harness.model_class()


def test_what_a_call_changes_is_undone(folder: Path) -> None:
    loaded = load(ModelSpec("odd", make=f"{folder / 'net.py'}:odd"))
    first, second = (loaded.run(loaded.module, loaded.calls[0]) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    exact = loaded.truth()[0]
    assert {name: value.dtype for name, value in exact.items()} == dict.fromkeys("01", torch.float64)
    assert all(torch.allclose(first[name].double(), exact[name]) for name in exact)
    assert not loaded.module.get_buffer("calls").any()


def test_dataclasses_and_complex_numbers_are_compared(folder: Path) -> None:
    loaded = load(ModelSpec("odd", make=f"{folder / 'net.py'}:odd"))
    found = loaded.run(loaded.module, loaded.calls[0])
    assert {name: tuple(value.shape) for name, value in found.items()} == {"0": (2, 4), "1": (2, 4, 2)}
    wrong = {**found, "1": found["1"] + 1}
    assert errors_of([wrong], [found])["outputs"]["1"]["worst"] > 0


def test_a_seed_is_that_of_weights_and_inputs(folder: Path) -> None:
    a, b, c = (load(spec(folder, seed=seed)).module.a.weight for seed in (0, 1, 0))
    assert torch.equal(a, c) and not torch.equal(a, b)


def test_an_integer_answer_is_refused(folder: Path) -> None:
    loaded = load(spec(folder, output="answer"))
    with pytest.raises(OptionError, match="int64"):
        loaded.outputs({"answer": torch.zeros(2, dtype=torch.int64)})


@pytest.mark.parametrize("text", ["3", "null", '["a", "b"]', "[-1, 2]", "[1.5]", f"[{2**70}]", "[true]", '{"a": 1}'])
def test_a_column_of_neither_text_nor_ids(folder: Path, text: str) -> None:
    (folder / "x.jsonl").write_text(f'{{"text": [1, 2]}}\n{{"text": {text}}}\n')
    with pytest.raises(OptionError, match="row 2: 'text' is "):
        local.batches(spec(folder, data=str(folder / "x.jsonl"), tokens=1, batch=1), None)


def test_a_line_that_is_no_json(folder: Path) -> None:
    (folder / "x.jsonl").write_text('{"text": [1]}\n{"text":\n')
    with pytest.raises(OptionError, match="line 2 cannot be read"):
        local.batches(spec(folder, data=str(folder / "x.jsonl"), tokens=1, batch=1), None)
