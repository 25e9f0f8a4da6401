"""Build and load the vision towers and language models that VLKD supports, which two tables list."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    BartForConditionalGeneration,
    BartModel,
    CLIPVisionModelWithProjection,
    MBartForConditionalGeneration,
    MBartModel,
    PreTrainedConfig,
    PreTrainedModel,
    SiglipVisionModel,
)
from transformers.modeling_outputs import ModelOutput
from transformers.utils import logging

from .configuration_clip_resnet_vlkd import CLIPResNetVisionConfig
from .configuration_vlkd import check_text_config
from .modeling_clip_resnet_vlkd import CLIPResNetVisionModelWithProjection


logger = logging.get_logger(__name__)


class VisionTower(NamedTuple):
    """The class of one kind of vision tower, and a function that takes the rows `V` from its output."""

    model_class: type[PreTrainedModel]
    rows: Callable[[ModelOutput], Tensor]  # output -> (batch, rows, projection_dim); row 0 is CLIP's image embedding


class LanguageModel(NamedTuple):
    """The classes of one kind of language model, without and with its head."""

    model_class: type[PreTrainedModel]
    head_class: type[PreTrainedModel]


# The keys of both tables are model types, not configuration classes: when the code is loaded from the Hub, there may
# be two copies of one class.
VISION_TOWERS = {
    "clip_vision_model": VisionTower(CLIPVisionModelWithProjection, lambda output: output.image_embeds[:, None]),
    "siglip_vision_model": VisionTower(SiglipVisionModel, lambda output: output.pooler_output[:, None]),
    CLIPResNetVisionConfig.model_type: VisionTower(
        CLIPResNetVisionModelWithProjection, lambda output: output.last_hidden_state
    ),
}
LANGUAGE_MODELS = {  # mBART-50 is built as BART is, but normalizes before attention
    "bart": LanguageModel(BartModel, BartForConditionalGeneration),
    "mbart": LanguageModel(MBartModel, MBartForConditionalGeneration),
}


def vision_tower_of(model_type: str) -> VisionTower:
    """Look up a kind of vision tower; one that is not supported is a ValueError."""
    if model_type not in VISION_TOWERS:
        raise ValueError(
            f"Vision towers of type {model_type!r} are not supported; choose one of {', '.join(VISION_TOWERS)}."
        )
    return VISION_TOWERS[model_type]


def load_vision_tower(name_or_path: str | os.PathLike, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load the vision tower, with CLIP's projection, from a checkpoint in transformers format."""
    config, _ = PreTrainedConfig.get_config_dict(name_or_path)
    if not {"model_type", "vision_config"} & set(config):
        raise ValueError(f"{name_or_path} has no config.json that names a model; give the folder or Hub id of a CLIP.")
    model_type = config.get("vision_config", config).get("model_type")
    if model_type is None:  # old configurations do not state the model type of their towers
        model_type = f"{config.get('model_type')}_vision_model"
    overrides = {}
    if "vision_config" in config and "projection_dim" in config:
        # A CLIP with both towers states the width of its joint space once, beside the towers. The tower's own
        # `projection_dim` may be only the default of its class.
        overrides["projection_dim"] = config["projection_dim"]
    return load_whole(vision_tower_of(model_type).model_class, name_or_path, dtype=dtype, **overrides)


def load_language_model(name_or_path: str | os.PathLike, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load a language model with its head; another kind, or missing weights, are a ValueError."""
    config, _ = PreTrainedConfig.get_config_dict(name_or_path)
    check_text_config(config, str(name_or_path))
    return load_whole(LANGUAGE_MODELS[config["model_type"]].head_class, name_or_path, dtype=dtype)


def load_whole(model_class: Any, name_or_path: str | os.PathLike, **kwargs: Any) -> PreTrainedModel:
    """Load a model, and stop if its checkpoint lacks a tensor, which would otherwise be initialized at random.

    Tensors that the model does not have, such as those of a CLIP's other tower, are ignored without a warning.

    Args:
        model_class: a model or an Auto class.
        name_or_path: folder or Hub id.
        kwargs: for `from_pretrained`.

    Raises:
        ValueError: tensors are missing; the message names some of them.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # transformers would warn of every tensor that is ignored
    try:
        model, loading = model_class.from_pretrained(name_or_path, output_loading_info=True, **kwargs)
    finally:
        logging.set_verbosity(verbosity)
    if loading["missing_keys"]:
        names = ", ".join(sorted(loading["missing_keys"])[:3])
        raise ValueError(
            f"{name_or_path} lacks {len(loading['missing_keys'])} of the model's tensors, such as {names}."
        )
    return model


def find_mask_token_id(name_or_path: str | os.PathLike) -> int | None:
    """Return the mask token id of a language model's tokenizer, because its configuration does not state it.

    If the tokenizer cannot be loaded, a warning is logged and the result is None.
    """
    try:
        return AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=False).mask_token_id
    except (OSError, ValueError) as error:
        logger.warning(
            "%s has no tokenizer that loads (%s), so `generate()` cannot force the known beginning of a prompt; set "
            "`model.generation_config.mask_token_id = tokenizer.mask_token_id`.",
            name_or_path,
            str(error).split("\n")[0],
        )
        return None
