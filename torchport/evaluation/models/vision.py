"""Image models of `transformers`, and CLIP's pair of encoders."""

from __future__ import annotations

import torch
import transformers as hf
from torch import nn

from torchport.evaluation.models.entry import Entry, Inputs, Size, register
from torchport.evaluation.models.language import SHAPES, tokens

CLASSES = 101  # enough that an error over the logits is no single draw
BATCH = 2
IMAGE: dict[Size, int] = {"small": 32, "bench": 128}


def image(size: Size) -> Inputs:
    """Random pictures, batch x 3 x height x width."""
    return {"pixel_values": torch.randn(BATCH, 3, IMAGE[size], IMAGE[size])}


def class_labels(inputs: Inputs, module: nn.Module) -> Inputs:
    """One random class a picture."""
    return {"labels": torch.randint(0, CLASSES, (inputs["pixel_values"].shape[0],))}


def vit(size: Size) -> tuple[nn.Module, Inputs]:
    s = SHAPES[size]
    config = hf.ViTConfig(
        hidden_size=s.hidden, num_hidden_layers=s.layers, num_attention_heads=s.heads, num_labels=CLASSES,
        intermediate_size=s.intermediate, image_size=IMAGE[size], patch_size=8,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return hf.ViTForImageClassification(config), image(size)


def swin(size: Size) -> tuple[nn.Module, Inputs]:
    depths, dim = ([2, 2], 32) if size == "small" else ([2, 2, 2], 96)
    config = hf.SwinConfig(
        image_size=IMAGE[size], patch_size=4, embed_dim=dim, depths=depths, num_heads=[2, 4, 8][: len(depths)],
        window_size=4, num_labels=CLASSES, drop_path_rate=0.0, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return hf.SwinForImageClassification(config), image(size)


def convnext(size: Size) -> tuple[nn.Module, Inputs]:
    widths, depths = ([32, 64], [1, 1]) if size == "small" else ([96, 192, 384], [1, 2, 1])
    config = hf.ConvNextConfig(
        hidden_sizes=widths, depths=depths, num_stages=len(widths), image_size=IMAGE[size], num_labels=CLASSES,
        layer_scale_init_value=0.5,
    )  # fmt: skip
    return hf.ConvNextForImageClassification(config), image(size)


def resnet(size: Size) -> tuple[nn.Module, Inputs]:
    widths, depths = ([32, 64], [1, 1]) if size == "small" else ([128, 256, 512], [1, 2, 1])
    config = hf.ResNetConfig(embedding_size=32, hidden_sizes=widths, depths=depths, num_labels=CLASSES)
    return hf.ResNetForImageClassification(config), image(size)


def clip(size: Size) -> tuple[nn.Module, Inputs]:
    s = SHAPES[size]
    text = dict(
        hidden_size=s.hidden, num_hidden_layers=s.layers, num_attention_heads=s.heads, vocab_size=s.vocab,
        intermediate_size=s.intermediate, max_position_embeddings=s.sequence,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    vision = dict(
        hidden_size=s.hidden, num_hidden_layers=s.layers, num_attention_heads=s.heads,
        intermediate_size=s.intermediate, image_size=IMAGE[size], patch_size=8,
    )  # fmt: skip
    config = hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=s.hidden)
    ids = tokens(s)
    ids[:, -1] = 1  # the text vector is taken at the end-of-text token
    return hf.CLIPModel(config), {"input_ids": ids, "pixel_values": image(size)["pixel_values"]}


LOGITS = ("logits",)
register(Entry("vit", vit, LOGITS, class_labels, area="vision", kind="classes"))
register(Entry("swin", swin, LOGITS, class_labels, area="vision", kind="classes"))
register(Entry("convnext", convnext, LOGITS, class_labels, area="vision", kind="classes"))
register(Entry("resnet", resnet, LOGITS, class_labels, area="vision", kind="classes"))
register(
    Entry(
        "clip", clip, ("image_embeds", "text_embeds", "logits_per_image"), area="language and vision", kind="embeddings"
    )
)
