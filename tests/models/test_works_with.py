"""The lines of docs/works-with.md, each run with its package on a small model; skipped where the package is missing."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from torchport.runtime import events

PAGE = Path(__file__).parents[2] / "docs" / "works-with.md"

MODULE = 'model.compile(backend="torchport")'
FUNCTION = 'model = torch.compile(model, backend="torchport")'
FORWARD = 'model.forward = torch.compile(model.forward, backend="torchport")'
PIPELINE = 'pipeline.unet.compile(backend="torchport")'
LINES = {
    "transformers": MODULE, "transformers Trainer": MODULE, "accelerate": MODULE, "Lightning": FUNCTION,
    "sentence-transformers": FORWARD, "diffusers": PIPELINE, "timm": FUNCTION, "torchvision": FUNCTION,
    "torchao": FUNCTION, "peft": MODULE, "x-transformers": FUNCTION,
}  # fmt: skip


def imported(name: str) -> ModuleType:
    """The module ``name``; skips the test if it is not installed, or is not made for this PyTorch."""
    try:
        return importlib.import_module(name)
    except (
        ImportError,
        RuntimeError,
    ) as error:  # torchvision's, beside a PyTorch that it was not built for
        pytest.skip(f"{name} cannot be imported: {error}")


def run(name: str, **values: Any) -> Any:
    """What the page's line for ``name`` makes of its model or pipeline."""
    scope = {"torch": torch, **values}
    exec(LINES[name], scope)
    (subject,) = values
    return scope[subject]


def graphs(happened: Any) -> int:
    """How many graphs torchport compiled; fails if it left one elsewhere."""
    assert not [str(event) for event in happened if isinstance(event, events.Fallback)]
    return sum(isinstance(event, events.Graph) for event in happened)


def agrees(model: Callable[..., Any], compiled: Callable[..., Any], *inputs: Any) -> None:
    """Check ``compiled`` against ``model`` in float64, with twice the error of ``model`` allowed."""
    reference = copy.deepcopy(model).double()(*(x.double() if x.is_floating_point() else x for x in inputs))
    with events.capture() as happened:
        result = compiled(*inputs)
    allowed = 2 * (model(*inputs) - reference).abs().max() + 1e-6 * reference.abs().max()
    assert (result - reference).abs().max() <= allowed
    assert graphs(happened) >= 1


class Small(torch.nn.Module):
    """A class of its own: Dynamo compiles nothing of ``torch.nn.Sequential(...).compile()``, whatever the backend."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def llama() -> Any:
    transformers = imported("transformers")
    settings = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(settings).eval()


def test_the_page_has_every_line() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    for name, line in LINES.items():
        assert [row for row in rows if row.startswith(f"| {name} ") and f"`{line}`" in row], name


def test_transformers_generate() -> None:
    model, tokens = llama(), torch.randint(0, 64, (1, 5))
    greedy = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(tokens, **greedy)
    run("transformers", model=model)
    with events.capture() as happened:
        assert torch.equal(model.generate(tokens, **greedy), expected)
    assert graphs(happened) >= 1


def test_transformers_trainer(tmp_path: Path) -> None:
    imported("accelerate")
    transformers, model = imported("transformers"), llama()
    data = [{"input_ids": torch.randint(0, 64, (6,)), "labels": torch.randint(0, 64, (6,))} for _ in range(4)]
    settings = {"output_dir": str(tmp_path), "report_to": [], "use_cpu": True, "max_steps": 2, "disable_tqdm": True}
    losses = []
    for compile_ in (False, True):
        trained = copy.deepcopy(model)
        if compile_:
            run("transformers Trainer", model=trained)
        arguments = transformers.TrainingArguments(**settings, per_device_train_batch_size=2, seed=1)
        with events.capture() as happened:
            losses.append(transformers.Trainer(model=trained, args=arguments, train_dataset=data).train().training_loss)
    assert graphs(happened) >= 2  # forward and backward
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_accelerate() -> None:
    accelerate = imported("accelerate")
    with pytest.raises(ValueError, match=r"(?i)torchport"):  # its list is closed: once it is open, the page is wrong
        accelerate.Accelerator(cpu=True, dynamo_backend="torchport")
    accelerator, x = accelerate.Accelerator(cpu=True), torch.randn(4, 8)
    model = run("accelerate", model=Small())
    prepared, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.1))
    with events.capture() as happened:
        before = prepared(x).square().mean()
        accelerator.backward(before)
        optimizer.step()
    assert graphs(happened) == 2
    assert prepared(x).square().mean() < before


def test_lightning(tmp_path: Path) -> None:
    lightning = imported("lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layers = Small()

        def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
            return self.layers(batch).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    module, data = Module(), torch.utils.data.DataLoader(torch.randn(8, 8), batch_size=4)
    before = copy.deepcopy(module.layers.layers[0].weight)
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    with events.capture() as happened:
        trainer.fit(run("Lightning", model=module), data)
    assert graphs(happened) >= 2
    assert not torch.equal(module.layers.layers[0].weight, before)


def test_sentence_transformers(tmp_path: Path) -> None:
    sentence_transformers, transformers = imported("sentence_transformers"), imported("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"a small cat sat on the mat".split()]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    transformers.BertModel(transformers.BertConfig(vocab_size=len(words), **sizes)).save_pretrained(tmp_path)
    modules = imported("sentence_transformers.sentence_transformer.modules")
    transformer = modules.Transformer(str(tmp_path))
    pooling = modules.Pooling(32)
    model = sentence_transformers.SentenceTransformer(modules=[transformer, pooling], device="cpu")
    sentences = ["a small cat sat", "on the mat"]
    expected = model.encode(sentences)
    run("sentence-transformers", model=model)
    with events.capture() as happened:
        assert abs(model.encode(sentences) - expected).max() < 1e-5
    assert graphs(happened) >= 1


def test_diffusers() -> None:
    diffusers = imported("diffusers")
    unet = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    pipeline = diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(num_train_timesteps=10))
    pipeline.set_progress_bar_config(disable=True)

    def image() -> Any:
        return pipeline(num_inference_steps=2, generator=torch.Generator().manual_seed(1), output_type="np").images

    expected = image()
    run("diffusers", pipeline=pipeline)
    with events.capture() as happened:
        assert abs(image() - expected).max() < 1e-4
    assert graphs(happened) >= 1


@pytest.mark.parametrize("name", ["timm", "torchvision"])
def test_image_models(name: str) -> None:
    package = imported(name)
    if name == "timm":
        model = package.create_model("vit_tiny_patch16_224", img_size=32, depth=1)
    else:
        model = package.models.squeezenet1_1(num_classes=10)
    model.eval()
    with torch.no_grad():
        agrees(model, run(name, model=model), torch.randn(1, 3, 32, 32))


def test_torchao() -> None:
    imported("torchao")
    quantization = imported("torchao.quantization")
    model, x = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU()).eval(), torch.randn(4, 64)
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    with torch.no_grad(), events.capture() as happened:
        expected = model(x)
        assert (run("torchao", model=model)(x) - expected).abs().max() < 1e-5
    assert graphs(happened) >= 1


def test_peft() -> None:
    peft = imported("peft")
    model = peft.get_peft_model(llama(), peft.LoraConfig(r=2, target_modules=["q_proj"])).eval()
    tokens = torch.randint(0, 64, (1, 5))
    expected = model(tokens).logits
    run("peft", model=model)
    with events.capture() as happened:
        loss = model(tokens).logits
        loss.square().mean().backward()
    assert (loss - expected).abs().max() < 1e-5
    assert graphs(happened) == 2


def test_x_transformers() -> None:
    x_transformers = imported("x_transformers")
    decoder = x_transformers.Decoder(dim=32, depth=1, heads=2)
    model = x_transformers.TransformerWrapper(num_tokens=64, max_seq_len=16, attn_layers=decoder).eval()
    with torch.no_grad():
        agrees(model, run("x-transformers", model=model), torch.randint(0, 64, (1, 8)))
