"""Embed texts by the text tower of a CLIP: as a teacher, or in place of the sentences of a model."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import (
    AutoModel,
    AutoTokenizer,
    BatchEncoding,
    CLIPTextModelWithProjection,
    MetaClip2TextModelWithProjection,
    PreTrainedConfig,
    SiglipTextModel,
)

from modeling_vlkd.towers_vlkd import load_whole


TEXT_TOWERS = {
    "clip_text_model": CLIPTextModelWithProjection,
    "metaclip_2_text_model": MetaClip2TextModelWithProjection,
    "siglip_text_model": SiglipTextModel,
}


class CLIPTextTower:
    """The text tower of a CLIP, frozen, in fp32 whatever its file holds.

    Args:
        name_or_path: folder or Hub id of a CLIP in transformers format, or of its text tower alone, as
            `vlkd convert --teacher` writes it; with its tokenizer.
        device: where it runs.
    """

    def __init__(self, name_or_path: str, device: torch.device | str = "cpu"):
        config, _ = PreTrainedConfig.get_config_dict(name_or_path)
        self.is_tower = config.get("model_type") in TEXT_TOWERS
        model_class = TEXT_TOWERS[config["model_type"]] if self.is_tower else AutoModel
        model = load_whole(model_class, name_or_path, dtype=torch.float32)
        if not self.is_tower and not callable(getattr(model, "get_text_features", None)):
            raise ValueError(f"{name_or_path} is a {type(model).__name__} without a text tower; give the whole CLIP.")
        self.model = model.to(device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(name_or_path)
        self.max_length = (model.config if self.is_tower else model.config.text_config).max_position_embeddings

    @torch.no_grad()
    def embed(self, texts: Sequence[str], batch_size: int = 256) -> Tensor:
        """Embed texts as CLIP does, not normalized: `(texts, dim)`."""
        # SigLIP was trained on texts padded to their full length, padding not masked.
        siglip = self.model.config.model_type.startswith("siglip")
        parts = []
        for first in range(0, len(texts), batch_size):
            tokens = self.tokenizer(
                list(texts[first : first + batch_size]),
                padding="max_length" if siglip else True,
                return_attention_mask=not siglip,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            )
            parts.append(self.text_embeds(tokens.to(self.model.device)).float().cpu())
        return torch.cat(parts)

    def text_embeds(self, tokens: BatchEncoding) -> Tensor:
        if not self.is_tower:
            return self.model.get_text_features(**tokens).pooler_output
        output = self.model(**tokens)
        return output.text_embeds if "text_embeds" in output else output.pooler_output
