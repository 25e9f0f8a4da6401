"""Configuration of VLKD: a frozen CLIP vision tower, a BART, and three matrices between them."""

from .hub_files_vlkd import (  # first: it refuses a transformers that is too old
    AUTO_MAP,
    CUSTOM_PIPELINES,
    brings_its_code,
)


# isort: split
import math
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_clip_resnet_vlkd import CLIPResNetVisionConfig


def check_text_config(text_config: dict[str, Any], name: str):
    """Refuse language models that do not write texts as BART does: one first token, the words, the end token.

    BART's first token is `<s>`; mBART-50's is the code of the language. The mBART before it (mbart-large-cc25) puts
    the code at the end.

    Args:
        text_config: the configuration, as a dictionary.
        name: what the error message calls the model.

    Raises:
        ValueError: a model of another kind, or an mBART older than mBART-50.
    """
    model_type = text_config.get("model_type")
    if model_type not in ("bart", "mbart"):
        raise ValueError(f"{name} holds a model of type {model_type!r}; give a BART.")
    if model_type == "mbart" and text_config.get("decoder_start_token_id") != text_config.get("eos_token_id", 2):
        raise ValueError(f"{name} holds an mBART that expects the language behind the text; give a BART or mBART-50.")


@brings_its_code("AutoConfig")
@strict
class VLKDConfig(PreTrainedConfig):
    r"""
    Configuration of [`VLKDModel`] and its heads (arXiv:2203.06386).

    Args:
        vision_config (`dict` or `PreTrainedConfig`, *optional*):
            The CLIP vision tower; its `model_type` chooses the class. Defaults to a `clip_vision_model`.
        text_config (`dict` or `PreTrainedConfig`, *optional*):
            The BART, or an `mbart` in the format of mBART-50. Defaults to `bart`.
        projection_dim (`int`, *optional*):
            Width of CLIP's joint space. Taken from `vision_config`: its `projection_dim`, or its `hidden_size` for a
            SigLIP, which has no projection. Any other value is an error.
        text_pooling (`str`, *optional*, defaults to `"bos"`):
            Which BART encoder state stands for the sentence: `"bos"` (first token), `"eos"` (last token) or `"mean"`.
        freeze_vision_tower (`bool`, *optional*, defaults to `True`):
            Keep CLIP as it is: it gets no gradients and stays in eval mode even after `train()`.
        bridge_text_only (`bool`, *optional*, defaults to `True`):
            Without an image, still send the text through CLIP's space (`W'_e W_e E`), as is done with an image. With
            `False`, a text without an image reaches the decoder as BART's own encoder states.
        logit_scale_init_value (`float`, *optional*, defaults to `ln(1 / 0.07)`):
            Logarithm of the initial inverse temperature of the contrastive loss.

    Example:

    ```python
    >>> from modeling_vlkd import VLKDConfig, VLKDForConditionalGeneration

    >>> config = VLKDConfig(
    ...     vision_config={"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64,
    ...                    "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 16},
    ...     text_config={"model_type": "bart", "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    ...                  "encoder_attention_heads": 4, "decoder_attention_heads": 4, "vocab_size": 100},
    ... )
    >>> model = VLKDForConditionalGeneration(config)
    >>> config.projection_dim
    16

    ```
    """

    model_type = "vlkd"
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="clip_vision_model"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bart"),
    }

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    projection_dim: int | None = None
    text_pooling: str = "bos"
    freeze_vision_tower: bool = True
    bridge_text_only: bool = True
    logit_scale_init_value: float = math.log(1 / 0.07)
    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs):
        # If a loaded configuration kept `custom_pipelines`, `pipeline()` would use it instead of the registry, and ask
        # for `trust_remote_code` although this package is imported. So only the copy of this file that runs as remote
        # code keeps it. `to_dict` writes it again for the Hub.
        custom_pipelines = kwargs.pop("custom_pipelines", None)
        if custom_pipelines is not None and __name__.startswith("transformers_modules."):
            kwargs["custom_pipelines"] = custom_pipelines
        # AutoConfig does not know our ResNet configuration, so it is built before the base class asks AutoConfig.
        if (
            isinstance(self.vision_config, dict)
            and self.vision_config.get("model_type") == CLIPResNetVisionConfig.model_type
        ):
            self.vision_config = CLIPResNetVisionConfig(**self.vision_config)
        super().__post_init__(**kwargs)
        self.pad_token_id = self.text_config.pad_token_id  # Seq2SeqTrainer reads it from the outer configuration
        tower_dim = getattr(self.vision_config, "projection_dim", None) or self.vision_config.hidden_size
        if self.projection_dim is None:
            self.projection_dim = tower_dim

    def validate_projection(self):
        tower_dim = getattr(self.vision_config, "projection_dim", None) or self.vision_config.hidden_size
        if self.projection_dim != tower_dim:
            raise ValueError(
                f"projection_dim={self.projection_dim}, but the vision tower gives {tower_dim} dimensions. "
                "Leave projection_dim out: it is taken from vision_config."
            )

    def validate_text_model(self):
        check_text_config(self.text_config.to_dict(), "text_config")

    def validate_text_pooling(self):
        if self.text_pooling not in ("bos", "eos", "mean"):
            raise ValueError(f'text_pooling={self.text_pooling!r}: choose "bos", "eos" or "mean".')

    def to_dict(self) -> dict[str, Any]:
        output = super().to_dict()
        output["auto_map"] = AUTO_MAP
        output["custom_pipelines"] = CUSTOM_PIPELINES
        for part in ("vision_config", "text_config"):
            output[part].pop("_name_or_path", None)  # a folder on the machine where the model was made: private
            output[part].pop("auto_map", None)  # it would name code files that are not copied
        return output


__all__ = ["VLKDConfig"]
