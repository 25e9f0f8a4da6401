"""Translates open_clip's configurations of models and preprocessing into those of transformers.

open_clip describes a model as `{"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}`. OpenAI published no
configuration; for its checkpoints such a description is made from the shapes of the tensors, as `build_model` in
`clip/model.py` of github.com/openai/CLIP does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.transform import PreprocessCfg
from transformers import CLIPTextConfig, CLIPVisionConfig
from transformers.image_processing_utils import BaseImageProcessor

from modeling_vlkd.configuration_clip_resnet_vlkd import CLIPResNetVisionConfig
from modeling_vlkd.image_processing_vlkd import VLKDImageProcessor

from .errors import ConversionError, UnsupportedError


# Settings that are translated.
VISION_SETTINGS = {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "norm_kwargs"}
TEXT_SETTINGS = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "norm_kwargs", "eos_id"}
TEXT_SETTINGS |= {"pool_type", "hf_tokenizer_name", "tokenizer_kwargs"}
# Settings that change nothing once a model is trained.
TRAINING_SETTINGS = {"patch_dropout", "output_tokens", "timm_drop", "timm_drop_path", "timm_model_pretrained"}
RESAMPLING = {"bicubic": 3, "bilinear": 2, "random": 3}  # PIL's numbers; "random" is random in training only


def refuse_other_settings(cfg: dict[str, Any], defaults: type, understood: set[str], tower: str):
    """Raise UnsupportedError if a tower has a setting that changes its results and that we do not translate.

    Args:
        cfg: the tower's description.
        defaults: open_clip's dataclass with the default of each setting.
        understood: the settings that we translate.
        tower: the tower's name, for the message.
    """
    usual = {field.name: field.default for field in fields(defaults)}
    for name, value in cfg.items():
        if name in understood or name in TRAINING_SETTINGS:
            continue
        if name not in usual or (value != usual[name] and value not in (None, False, "")):
            raise UnsupportedError(f"open_clip's {tower} towers with {name}={value!r} are not supported.")


def layer_norm_eps(cfg: dict[str, Any]) -> float:
    """Read the epsilon of the layer norms; refuse any other setting of the layer norms."""
    settings = dict(cfg.get("norm_kwargs") or {})
    eps = settings.pop("eps", 1e-5)
    if settings:
        raise UnsupportedError(f"open_clip's layer norm settings {settings} are not supported.")
    return eps


def vision_config(model_cfg: dict[str, Any]) -> CLIPVisionConfig | CLIPResNetVisionConfig:
    """Translate `vision_cfg`: if `layers` is a list the tower is a ResNet, if a number a transformer."""
    cfg = model_cfg["vision_cfg"]
    refuse_other_settings(cfg, CLIPVisionCfg, VISION_SETTINGS, "vision")
    cfg = {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224, **cfg}
    image_size = cfg["image_size"]
    if isinstance(image_size, (list, tuple)):
        if image_size[0] != image_size[1]:
            raise ConversionError(f"Expected square pictures, got image_size={image_size}.")
        image_size = image_size[0]
    common = {"image_size": image_size, "projection_dim": model_cfg["embed_dim"]}
    if isinstance(cfg["layers"], (list, tuple)):
        heads = cfg["width"] * 32 // cfg["head_width"]  # the attention pool is 32 times `width` wide
        return CLIPResNetVisionConfig(
            layers=tuple(cfg["layers"]), width=cfg["width"], num_attention_heads=heads, **common
        )
    return CLIPVisionConfig(
        hidden_size=cfg["width"],
        intermediate_size=int(cfg["width"] * cfg["mlp_ratio"]),
        num_hidden_layers=cfg["layers"],
        num_attention_heads=cfg["width"] // cfg["head_width"],
        patch_size=cfg["patch_size"],
        hidden_act="quick_gelu" if model_cfg.get("quick_gelu") else "gelu",
        layer_norm_eps=layer_norm_eps(cfg),
        **common,
    )


def text_config(model_cfg: dict[str, Any]) -> CLIPTextConfig:
    """Translate `text_cfg`; raise UnsupportedError if transformers' CLIP text tower computes something else."""
    cfg = model_cfg["text_cfg"]
    refuse_other_settings(cfg, CLIPTextCfg, TEXT_SETTINGS, "text")
    cfg = {"vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0, "context_length": 77, **cfg}
    pooling = cfg.get("pool_type", "argmax")
    # "argmax" pools at the token with the highest id, which is the end of text.
    eos = cfg["vocab_size"] - 1 if pooling == "argmax" else cfg.get("eos_id", 2)
    # transformers takes an end of text of 2 for a mistake in an old configuration; it pools at the highest id then.
    if pooling not in ("argmax", "eos") or eos == 2:
        raise UnsupportedError(
            f"open_clip's text towers with pool_type={pooling!r} and eos_id={eos} are not supported."
        )
    return CLIPTextConfig(
        vocab_size=cfg["vocab_size"],
        hidden_size=cfg["width"],
        intermediate_size=int(cfg["width"] * cfg["mlp_ratio"]),
        projection_dim=model_cfg["embed_dim"],
        num_hidden_layers=cfg["layers"],
        num_attention_heads=cfg["heads"],
        max_position_embeddings=cfg["context_length"],
        hidden_act="quick_gelu" if model_cfg.get("quick_gelu") else "gelu",
        layer_norm_eps=layer_norm_eps(cfg),
        bos_token_id=cfg["vocab_size"] - 2,
        eos_token_id=eos,
        pad_token_id=eos,
    )


def count_indices(keys: Iterable[str], prefix: str) -> int:
    """Count the different numbers that follow `prefix` in the keys, such as those of layers."""
    return len({key[len(prefix) :].split(".")[0] for key in keys if key.startswith(prefix)})


def openai_model_cfg(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Find the architecture of one of OpenAI's CLIPs by the shapes of its tensors.

    Raises:
        ConversionError: the tensors are not those of such a CLIP, or the picture is not square. The message is the end
            of a sentence that begins with "the checkpoint".
    """
    needed = ["text_projection", "positional_embedding", "token_embedding.weight", "ln_final.weight"]
    if not any(key.startswith("visual.") for key in tensors):
        raise ConversionError("holds no vision tower (no key begins with 'visual.'); give a whole CLIP")
    is_transformer = "visual.proj" in tensors
    stem = "visual.conv1.weight" if is_transformer else "visual.layer1.0.conv1.weight"
    position_key = "visual.positional_embedding" if is_transformer else "visual.attnpool.positional_embedding"
    if missing := [key for key in [*needed, stem, position_key] if key not in tensors]:
        raise ConversionError(f"is no CLIP as OpenAI published them: {missing[0]!r} is missing")
    shapes = {key: tuple(tensors[key].shape) for key in [*needed, stem, position_key]}
    for key, shape in shapes.items():
        if 0 in shape or len(shape) != {"ln_final.weight": 1, stem: 4}.get(key, 2):
            raise ConversionError(f"is no CLIP as OpenAI published them: {key!r} has shape {shape}")
    grid = round((shapes[position_key][0] - 1) ** 0.5)
    if grid**2 + 1 != shapes[position_key][0]:
        # one row for each patch of a square picture, and one for the class token
        raise ConversionError(f"has {shapes[position_key][0]} rows in {position_key!r}, which is no square plus one")
    if is_transformer:
        patch = shapes[stem][-1]
        layers: Any = count_indices(tensors, "visual.transformer.resblocks.")
        image_size = grid * patch
    else:
        patch, image_size = None, grid * 32  # CLIP's ResNets make the picture smaller by a factor of 32
        layers = [count_indices(tensors, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)]
    width = shapes["ln_final.weight"][0]
    return {
        "embed_dim": shapes["text_projection"][1],
        "quick_gelu": True,
        "vision_cfg": {"image_size": image_size, "layers": layers, "width": shapes[stem][0], "patch_size": patch},
        "text_cfg": {
            "context_length": shapes["positional_embedding"][0],
            "vocab_size": shapes["token_embedding.weight"][0],
            "width": width,
            "heads": width // 64,  # as in all CLIPs that OpenAI published
            "layers": count_indices(tensors, "transformer.resblocks."),
        },
    }


def image_processor(preprocess: PreprocessCfg) -> BaseImageProcessor:
    """Translate open_clip's preprocessing."""
    sizes = preprocess.size if isinstance(preprocess.size, (list, tuple)) else (preprocess.size, preprocess.size)
    if preprocess.resize_mode not in ("shortest", "squash") or preprocess.interpolation not in RESAMPLING:
        raise ConversionError(
            f"open_clip's preprocessing with resize_mode={preprocess.resize_mode!r} and "
            f"interpolation={preprocess.interpolation!r} is not supported."
        )
    whole = {"height": sizes[0], "width": sizes[1]}
    crops = preprocess.resize_mode == "shortest"
    return VLKDImageProcessor(
        size={"shortest_edge": sizes[0]} if crops else whole,
        crop_size=whole,
        do_center_crop=crops,
        resample=RESAMPLING[preprocess.interpolation],
        image_mean=list(preprocess.mean),
        image_std=list(preprocess.std),
    )
