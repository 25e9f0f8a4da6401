"""Models that embed pictures and texts in one space, and embeddings as text that a file of predictions holds."""

import base64
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from modeling_vlkd.processing_vlkd import ImageInput

from .clip_texts import CLIPTextTower


class EmbeddingModel(Protocol):
    """The part of [`VisionLanguageModel`] that retrieval and zero-shot classification ask for."""

    def look(self, images: Iterable[ImageInput]) -> Any:
        """Look at pictures once."""

    def embed_images(self, images: Any) -> Tensor:
        """Embed pictures, or what `look` gave: `(images, dim)`."""

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts in the space of the pictures: `(texts, dim)`."""


class WithTextsOf:
    """A model whose pictures are compared with the texts of a CLIP's own text tower, not with its own sentences.

    Pictures of a VLKD are those of its CLIP, so with that CLIP's text tower this is the teacher itself, and what
    distillation has made of it shows beside it.

    Args:
        model: embeds the pictures.
        texts: embeds the texts, in the same space.
    """

    def __init__(self, model: EmbeddingModel, texts: CLIPTextTower):
        self.model = model
        self.texts = texts

    def look(self, images: Iterable[ImageInput]) -> Any:
        return self.model.look(images)

    def embed_images(self, images: Any) -> Tensor:
        return self.model.embed_images(images)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return self.texts.embed(texts)


def write_embedding(embedding: Tensor) -> str:
    """Write a vector, `(dim,)`, as the base64 of its float32 numbers, bit for bit."""
    return base64.b64encode(embedding.detach().cpu().float().numpy().astype("<f4").tobytes()).decode()


def read_embedding(text: str) -> Tensor:
    """Read what [`write_embedding`] wrote."""
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32))
