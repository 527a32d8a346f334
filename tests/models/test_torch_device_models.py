"""The zoo's models on the torch device: forward and training, eager and compiled, and text from Hugging Face."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from accuracy import InFloat64, compare
from model_zoo import Built, build, names
from training import judge

import torchport
from torchport.torch_device.targets import targets

pytestmark = pytest.mark.skipif(not targets(), reason="no target here has memory of its own")
QUICK = ("vit",)
TRAINED = ("llama", "gpt2", "resnet", "vit", "dlrm")


def on_device(built: Built) -> Built:
    device = torchport.device(0)
    inputs = {name: value.to(device) for name, value in built.inputs.items()}
    return Built(built.entry, copy.deepcopy(built.module).to(device), inputs, built.output_names)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in names()])
def test_forward(name: str) -> None:
    built = build(name)
    there, wide = on_device(built), built.to(torch.float64)
    with torch.no_grad():
        with InFloat64():
            reference = wide.outputs(wide.module(**wide.inputs))
        eager = built.outputs(built.module(**built.inputs))
        mine = {key: value.cpu() for key, value in there.outputs(there.module(**there.inputs)).items()}
    problems = compare(mine, eager, reference)
    assert not problems, "\n".join(problems)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("backend", [None, "torchport"], ids=["eager", "compiled"])
def test_training(name: str, backend: str | None) -> None:
    built = build(name, train=True)
    wide = built.to(torch.float64)
    judge(f"training {name} on the device", on_device(built), built, wide, backend)


def llama(layers: int) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=4,
            num_key_value_heads=2, vocab_size=64, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
            pad_token_id=0,
        )
    ).eval()  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"cache_implementation": "static"}, {"num_beams": 3}], ids=["greedy", "static", "beams"]
)
def test_generated_text_is_the_hosts_and_its_length_needs_no_code(options: dict[str, Any]) -> None:
    from torchport.runtime import events

    model, ids = llama(2), torch.randint(3, 64, (2, 5))
    there = copy.deepcopy(model).to(torchport.device(0))

    def text(model: Any, length: int) -> torch.Tensor:
        where = ids.to(model.device)
        mask = torch.ones_like(where)
        made = model.generate(where, attention_mask=mask, max_new_tokens=length, do_sample=False, **options)
        return torch.as_tensor(made).cpu()

    assert text(there, 4).equal(text(model, 4))
    with events.capture() as happened:
        assert text(there, 12).equal(text(model, 12))
    assert not [e for e in happened if isinstance(e, events.Kernel)]


@pytest.mark.slow
def test_sampled_text_follows_the_seed() -> None:
    model, ids = llama(1), torch.randint(3, 64, (2, 5))
    there = model.to(torchport.device(0))
    texts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        texts.append(there.generate(ids.to(there.device), max_new_tokens=8, do_sample=True, top_k=20).cpu())
    assert texts[0].equal(texts[1]) and not texts[0].equal(texts[2])
