"""A VLKD as benchmarks and commands see it; see `protocol.py`."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from modeling_vlkd.generation_vlkd import generate_answers, generate_captions
from modeling_vlkd.processing_vlkd import ImageInput, VLKDProcessor

from .protocol import Answer, Caption


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients, and afterwards back into the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def pixels_of(pictures: Sequence[ImageInput], model: PreTrainedModel, processor: VLKDProcessor) -> Tensor:
    """Preprocess pictures, on the device and in the dtype of a model: `(pictures, channels, height, width)`."""
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    return pixels.to(model.device, model.dtype)


class VLKDAdapter:
    """Lets a `VLKDForConditionalGeneration` speak the protocol of [`VisionLanguageModel`].

    Args:
        batch_size: pictures, questions or texts at a time.
        num_masks: masks in each prompt; the processor's default where None.
        top_k: how many different answers `rank_answers` gives; those to choose from are then more, too.
        generate_kwargs: for `generate()`, over what the checkpoint says.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: VLKDProcessor,
        batch_size: int = 64,
        num_masks: int | None = None,
        top_k: int = 1,
        **generate_kwargs: Any,
    ):
        self.model = model
        self.processor = processor
        self.batch_size = batch_size
        self.generate_kwargs = {"num_masks": num_masks, "batch_size": batch_size, "top_k": top_k, **generate_kwargs}

    def look(self, images: Iterable[ImageInput] | Tensor) -> Tensor:
        """Compute the rows V of pictures: `(pictures, rows, dim)`, on the CPU.

        No more pictures than a batch are in memory at once. A tensor holds rows already, and is given back as it is.
        """
        if isinstance(images, Tensor):
            return images
        parts, remaining = [torch.empty(0, 1, self.model.config.projection_dim)], iter(images)
        with evaluating(self.model):
            while batch := list(islice(remaining, self.batch_size)):
                rows = self.model.get_image_rows(pixels_of(batch, self.model, self.processor))
                parts.append(rows.float().cpu())
        return torch.cat(parts[1:] or parts)

    def answer(
        self,
        images: Iterable[ImageInput] | Tensor | None,
        questions: Sequence[str],
        image_index: Sequence[int] | None = None,
    ) -> list[Answer]:
        """Answer questions, each by the best text; see [`VisionLanguageModel`]."""
        return [ranked[0] for ranked in self.rank_answers(images, questions, image_index)]

    def rank_answers(
        self,
        images: Iterable[ImageInput] | Tensor | None,
        questions: Sequence[str],
        image_index: Sequence[int] | None = None,
    ) -> list[list[Answer]]:
        """Give each question its `top_k` best answers that differ, best first."""
        rows = None if images is None else self.look(images)
        with evaluating(self.model):
            ranked = generate_answers(
                self.model,
                self.processor,
                questions,
                image_embeds=rows,
                image_index=image_index,
                **self.generate_kwargs,
            )
        return [[Answer(each["answer"], each["score"]) for each in answers] for answers in ranked]

    def caption(self, images: Iterable[ImageInput] | Tensor) -> list[Caption]:
        rows = self.look(images)
        with evaluating(self.model):
            ranked = generate_captions(self.model, self.processor, rows, **self.generate_kwargs)
        return [Caption(captions[0]["caption"], captions[0]["score"]) for captions in ranked]

    def embed_images(self, images: Iterable[ImageInput] | Tensor) -> Tensor:
        """Take row 0 of V, which is CLIP's own embedding: `(pictures, dim)`, on the CPU."""
        return self.look(images)[:, 0]

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts as BART's sentences in CLIP's space: `(texts, dim)`, on the CPU."""
        parts = [torch.empty(0, self.model.config.projection_dim)]
        with evaluating(self.model):
            for first in range(0, len(texts), self.batch_size):
                inputs = self.processor(text=list(texts[first : first + self.batch_size]), return_tensors="pt")
                sentences = self.model.get_text_features(**inputs.to(self.model.device)).pooler_output
                parts.append(sentences.float().cpu())
        return torch.cat(parts)
