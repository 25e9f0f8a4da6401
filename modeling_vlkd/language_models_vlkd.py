"""The language models that VLKD knows: BART, and mBART-50, which is built alike but normalises before attention."""

import os
from typing import NamedTuple

import torch
from transformers import (
    AutoTokenizer,
    BartForConditionalGeneration,
    BartModel,
    MBartForConditionalGeneration,
    MBartModel,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from .configuration_vlkd import check_text_config
from .loading_vlkd import load_whole


logger = logging.get_logger(__name__)


class LanguageModel(NamedTuple):
    """The classes of one kind of language model, without and with its head."""

    model_class: type[PreTrainedModel]
    head_class: type[PreTrainedModel]


# By `model_type`, as the vision towers.
LANGUAGE_MODELS = {
    "bart": LanguageModel(BartModel, BartForConditionalGeneration),
    "mbart": LanguageModel(MBartModel, MBartForConditionalGeneration),
}


def load_language_model(name_or_path: str | os.PathLike, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Loads a language model with its head; another kind, or missing weights, are a ValueError."""
    config, _ = PreTrainedConfig.get_config_dict(name_or_path)
    check_text_config(config, str(name_or_path))
    return load_whole(LANGUAGE_MODELS[config["model_type"]].head_class, name_or_path, dtype=dtype)


def find_mask_token_id(name_or_path: str | os.PathLike) -> int | None:
    """Ask the tokenizer beside a language model which token is the mask, for its configuration does not tell."""
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
