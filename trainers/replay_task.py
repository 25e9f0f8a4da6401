"""VLKD with replay: extra texts in each batch, which go through the same forward pass as the pairs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from modeling_vlkd.evaluation.random_numbers import mix, uniforms
from modeling_vlkd.evaluation.text_infilling import TextInfilling

from .collators import pad_rows
from .draws import DrawnExamples
from .objectives import text_infilling_loss
from .replay import ReplayCorpus, ReplayText
from .vlkd_task import VLKDTask


_TEXTS, _HOW_MANY = 1, 2  # streams of an example's seed, beside that of its masks
_REPLAY_MASKS = 1  # a stream of its draw, beside those of the collator


class ReplayExamples(DrawnExamples):
    """Adds to each example a list `replay` of texts, drawn anew in each epoch as its masks are.

    Args:
        examples, seed: as in [`DrawnExamples`].
        corpus: what is replayed.
        per_example: how many texts an example brings, on average if that is no integer.
    """

    def __init__(self, examples: Any, seed: int, corpus: ReplayCorpus, per_example: float):
        super().__init__(examples, seed)
        self.corpus = corpus
        self.per_example = per_example

    def draw_fields(self, seeds: np.ndarray) -> list[dict[str, Any]]:
        counts = np.floor(self.per_example + uniforms(seeds, 1, _HOW_MANY)[:, 0]).astype(int)
        picks = np.floor(uniforms(seeds, counts.max(initial=0), _TEXTS) * len(self.corpus)).astype(int)
        texts = [[self.corpus[pick] for pick in row[:count]] for row, count in zip(picks, counts)]
        return [{**fields, "replay": chosen} for fields, chosen in zip(super().draw_fields(seeds), texts)]


@dataclass
class ReplayCollator:
    """Adds the texts of the examples to the batch of their captions.

    They follow the captions in `input_ids`, `attention_mask` and `labels`, so that one forward pass reads both;
    `clean_input_ids` and `text_teacher_embeds` are of the captions alone. A text's context embedding is in
    `replay_embeds`, `(texts, dim)`, and is used as its only image row. `replay_has_context` marks the texts that have
    one.

    Args:
        collate: makes the batch of the captions; such as [`VLKDDistillationCollator`].
        infill: masks the texts that come without a source.
    """

    collate: Callable[[list[dict[str, Any]]], dict[str, Tensor]]
    infill: TextInfilling

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = self.collate(examples)
        texts = [text for example in examples for text in example.get("replay", ())]
        if not texts:
            return batch
        counts = [len(example.get("replay", ())) for example in examples]
        places = np.concatenate([np.arange(count) for count in counts])  # within the example that brought the text
        draws = np.array([example.get("draw", 0) for example in examples], dtype=np.uint64)
        seeds = mix(np.repeat(draws, counts), _REPLAY_MASKS, places)
        padding = self.infill.tokenizer.pad_token_id
        sources = torch.from_numpy(pad_rows(self._sources(texts, seeds), padding))
        targets = torch.from_numpy(pad_rows([text.target for text in texts], padding))
        batch["input_ids"] = stack(batch["input_ids"], sources, padding)
        batch["attention_mask"] = stack(batch["attention_mask"], (sources != padding).long(), 0)
        batch["labels"] = stack(batch["labels"], targets.masked_fill(targets == padding, -100), -100)
        return batch | contexts_of(texts)

    def _sources(self, texts: list[ReplayText], seeds: np.ndarray) -> list[Any]:
        """Take the sources given, and mask the targets of the texts that have none."""
        chosen = [place for place, text in enumerate(texts) if text.source is None]
        sources: list[Any] = [text.source for text in texts]
        if chosen:
            targets = pad_rows([texts[place].target for place in chosen], self.infill.tokenizer.pad_token_id)
            for place, masked in zip(chosen, self.infill(targets, seeds[chosen])):
                sources[place] = masked
        return sources


def stack(first: Tensor, second: Tensor, value: int) -> Tensor:
    """Put rows below others, all padded on the right to the longest."""
    longest = max(first.shape[1], second.shape[1])
    return torch.cat([pad(rows, (0, longest - rows.shape[1]), value=value) for rows in (first, second)])


def contexts_of(texts: list[ReplayText]) -> dict[str, Tensor]:
    """Give the contexts of texts, and which have one; nothing if none has."""
    given = [text.context_embeds for text in texts if text.context_embeds is not None]
    if not given:
        return {}
    none = torch.zeros_like(given[0])
    return {
        "replay_embeds": torch.stack([none if text.context_embeds is None else text.context_embeds for text in texts]),
        "replay_has_context": torch.tensor([text.context_embeds is not None for text in texts]),
    }


def join_image_rows(
    image_embeds: Tensor, texts: int, context_embeds: Tensor | None, has_context: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Append image rows for replayed texts to those of the pairs: a context is one row, the rest is masked.

    Args:
        image_embeds: `(pairs, rows, dim)`.
        texts: how many texts are replayed.
        context_embeds: `(texts, dim)`; None if no text has a context.
        has_context: `(texts,)`, bool.

    Returns:
        `(pairs + texts, rows, dim)`, and the attention mask of these rows, `(pairs + texts, rows)`.
    """
    pairs, rows, dim = image_embeds.shape
    embeds = image_embeds.new_zeros(pairs + texts, rows, dim)
    mask = torch.zeros(pairs + texts, rows, dtype=torch.long, device=image_embeds.device)
    embeds[:pairs], mask[:pairs] = image_embeds, 1
    if context_embeds is not None:
        embeds[pairs:, 0], mask[pairs:, 0] = context_embeds.to(embeds.dtype), has_context.long()
    return embeds, mask


class VLKDReplayTask(VLKDTask):
    """Adds the term `replay`, text infilling on replayed texts, to those of [`VLKDTask`].

    Batches are those of [`ReplayCollator`], of which some may bring no text.

    Raises:
        ValueError: the student's vision tower is not frozen, so that image rows could not stand beside contexts.
    """

    def __init__(self, student: PreTrainedModel, **kwargs: Any):
        super().__init__(student, **kwargs)
        if not self.bare_student.config.freeze_vision_tower:
            raise ValueError(
                "Replay needs a frozen vision tower: set `freeze_vision_tower=True` in the model's config."
            )

    def inputs_of(self, batch: dict[str, Any]) -> dict[str, Any]:
        inputs = super().inputs_of(batch)
        texts = len(batch["labels"]) - len(batch["clean_input_ids"])
        if texts:
            rows, row_mask = join_image_rows(
                self.image_rows(batch), texts, batch.get("replay_embeds"), batch.get("replay_has_context")
            )
            inputs.pop("pixel_values", None)
            inputs["image_embeds"] = rows
            inputs["attention_mask"] = torch.cat([row_mask, batch["attention_mask"]], dim=1)
        return inputs

    def terms_of(self, outputs: ModelOutput, batch: dict[str, Any], counts: dict[str, Tensor]) -> dict[str, Tensor]:
        labels, logits, pairs = batch["labels"], outputs.logits, len(batch["clean_input_ids"])
        outputs.logits, outputs.image_embeds = logits[:pairs], outputs.image_embeds[:pairs]
        terms = super().terms_of(outputs, {**batch, "labels": labels[:pairs]}, counts)
        if len(labels) > pairs:
            terms["replay"] = text_infilling_loss(logits[pairs:], labels[pairs:], counts.get("replay"))
        return terms

    def counts(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        real, pairs = batch["labels"] != -100, len(batch["clean_input_ids"])
        return {"icti": real[:pairs].sum(), "replay": real[pairs:].sum()}
