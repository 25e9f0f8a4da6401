"""The vision towers that VLKD knows: how each is built, where its output holds CLIP's rows, how it is loaded."""

import os
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import CLIPVisionModelWithProjection, PreTrainedConfig, PreTrainedModel, SiglipVisionModel
from transformers.modeling_outputs import ModelOutput

from .configuration_clip_resnet_vlkd import CLIPResNetVisionConfig
from .loading_vlkd import load_whole
from .modeling_clip_resnet_vlkd import CLIPResNetVisionModelWithProjection


class VisionTower(NamedTuple):
    """How one kind of vision tower is built, and where its output holds the rows `V`."""

    model_class: type[PreTrainedModel]
    rows: Callable[[ModelOutput], Tensor]  # output -> (batch, rows, projection_dim); row 0 is CLIP's image embedding


# By `model_type` and not by class: as remote code, one configuration class exists under two module names.
VISION_TOWERS = {
    "clip_vision_model": VisionTower(CLIPVisionModelWithProjection, lambda output: output.image_embeds[:, None]),
    "siglip_vision_model": VisionTower(SiglipVisionModel, lambda output: output.pooler_output[:, None]),
    CLIPResNetVisionConfig.model_type: VisionTower(
        CLIPResNetVisionModelWithProjection, lambda output: output.last_hidden_state
    ),
}


def vision_tower_of(model_type: str) -> VisionTower:
    """Looks a vision tower up; a kind that is not supported is a ValueError."""
    if model_type not in VISION_TOWERS:
        raise ValueError(
            f"Vision towers of type {model_type!r} are not supported; choose one of {', '.join(VISION_TOWERS)}."
        )
    return VISION_TOWERS[model_type]


def load_vision_tower(name_or_path: str | os.PathLike, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Loads the vision tower, with CLIP's projection, of a checkpoint in transformers format."""
    config, _ = PreTrainedConfig.get_config_dict(name_or_path)
    if not {"model_type", "vision_config"} & set(config):
        raise ValueError(f"{name_or_path} has no config.json that names a model; give the folder or Hub id of a CLIP.")
    model_type = config.get("vision_config", config).get("model_type")
    if model_type is None:  # configurations written long ago leave the model type of their towers out
        model_type = f"{config.get('model_type')}_vision_model"
    # The width of a whole CLIP's joint space stands beside its towers; the tower's own field may be a default.
    joint = {name: config[name] for name in ("projection_dim",) if "vision_config" in config and name in config}
    return load_whole(vision_tower_of(model_type).model_class, name_or_path, dtype=dtype, **joint)
