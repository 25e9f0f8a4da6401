"""Let models that embed pictures and texts in one space, and write nothing, speak the protocol of `protocol.py`."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from modeling_vlkd.processing_vlkd import ImageInput, open_image

from .errors import EvaluationError
from .peer_adapters import PeerAdapter
from .vlkd_model import evaluating


class DualEncoderAdapter(PeerAdapter):
    """CLIP and its kin.

    Args:
        padding: of texts: True to the longest, or "max_length" for models that were trained so. Longer ones are cut to
            what the tokenizer says the model can read.

    Raises:
        EvaluationError: settings are given that only a model which writes can have.
    """

    abilities = "embed pictures and texts"

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        name: str,
        batch_size: int = 64,
        padding: bool | str = True,
        **others: Any,
    ):
        super().__init__(model, processor, name, batch_size)
        if others:
            raise EvaluationError(
                f"{name} ({type(model).__name__}) writes no texts, so it has no {', '.join(others)}; leave that out."
            )
        self.padding = padding

    def embed_images(self, images: Iterable[ImageInput]) -> Tensor:
        """Embed pictures: `(pictures, dim)`, on the CPU; no more than a batch are in memory at once."""

        def embed(pictures: list[ImageInput]) -> Tensor:
            inputs = self.processor(images=[open_image(each) for each in pictures], return_tensors="pt")
            return self.image_features(**inputs.to(self.model.device, self.model.dtype))

        return self.embed(embed, images)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts: `(texts, dim)`, on the CPU."""

        def embed(part: list[str]) -> Tensor:
            inputs = self.processor.tokenizer(part, padding=self.padding, truncation=True, return_tensors="pt")
            return self.text_features(**inputs.to(self.model.device))

        return self.embed(embed, texts)

    def embed(self, embed_batch: Callable[[list[Any]], Tensor], items: Iterable[Any]) -> Tensor:
        parts, remaining = [], iter(items)
        with evaluating(self.model):
            while batch := list(islice(remaining, self.batch_size)):
                parts.append(embed_batch(batch).float().cpu())
        return torch.cat(parts) if parts else torch.empty(0, 0)

    def image_features(self, **inputs: Tensor) -> Tensor:
        return self.model.get_image_features(**inputs).pooler_output

    def text_features(self, **inputs: Tensor) -> Tensor:
        return self.model.get_text_features(**inputs).pooler_output


class BlipRetrievalAdapter(DualEncoderAdapter):
    """BLIP with the two projections of its contrastive loss, as its `forward` takes them with `use_itm_head=False`."""

    def image_features(self, **inputs: Tensor) -> Tensor:
        return self.model.vision_proj(self.model.vision_model(**inputs).last_hidden_state[:, 0])

    def text_features(self, **inputs: Tensor) -> Tensor:
        return self.model.text_proj(self.model.text_encoder(**inputs).last_hidden_state[:, 0])
