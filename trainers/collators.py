"""Collators: from examples to the inputs of one forward pass."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from modeling_vlkd.evaluation.random_numbers import mix, uniforms
from modeling_vlkd.evaluation.text_infilling import TextInfilling
from modeling_vlkd.processing_vlkd import CAPTION_PREFIX

from .draws import example_key


# Streams of an example's `draw`; 1 is that of replayed texts.
_CAPTION_MASKS, _VIEW, _WHOLE, _HOW_MANY = 0, 2, 3, 4


def pad_rows(rows: Sequence[Sequence[int]], value: int) -> np.ndarray:
    """Stack token ids of different lengths, padded on the right: `(batch, longest)`."""
    padded = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for row, ids in zip(padded, rows):
        row[: len(ids)] = ids
    return padded


def draw_views(seeds: np.ndarray, views: int) -> np.ndarray:
    """Draw which of its views an example shows, by number: `(batch,)`."""
    return np.floor(uniforms(seeds, 1, _VIEW)[:, 0] * views).astype(int)


def gather_images(examples: list[dict[str, Any]], processor: ProcessorMixin) -> dict[str, Tensor]:
    """Stack the images of examples that have one each: as `pixel_values`, or as `image_embeds` (the rows V).

    An example holds `image_embeds`, `(rows, dim)` or `(dim,)`; or `pixel_values`; or an `image`, which the processor
    prepares. Text only, all without an image, gives no tensor.
    """
    names = [name for name in ("image_embeds", "pixel_values", "image") if examples[0].get(name) is not None]
    if not names:
        return {}
    name = names[0]
    missing = [position for position, example in enumerate(examples) if example.get(name) is None]
    if missing:
        raise ValueError(
            f"Expected {name!r} in every example of a batch, but example {missing[0]} of {len(examples)} has none: "
            "keep text-only examples in batches of their own."
        )
    values = [example[name] for example in examples]
    if name == "image":
        return {"pixel_values": processor(images=values, return_tensors="pt")["pixel_values"]}
    stacked = torch.stack([torch.as_tensor(value) for value in values])
    if name == "image_embeds" and stacked.ndim == 2:
        stacked = stacked[:, None]  # one row an image
    return {name: stacked}


@dataclass
class VLKDDistillationCollator:
    """Makes a distillation batch: captions clean and corrupted, image rows, and the teacher's text embeddings.

    ```python
    >>> collate = VLKDDistillationCollator(processor, seed=3)
    >>> batch = collate([{"image_embeds": rows, "caption": "a red circle on grass", "text_teacher_embeds": teacher}])
    >>> processor.batch_decode(batch["clean_input_ids"])
    ['<s>a red circle on grass</s>']
    >>> processor.batch_decode(batch["input_ids"])
    ['<s>a red circle<mask><mask> grass</s>']
    >>> batch["image_embeds"].shape, batch["text_teacher_embeds"].shape  # (batch, rows, dim), (batch, dim)
    (torch.Size([1, 1, 16]), torch.Size([1, 16]))

    ```

    An example has a `caption` (or its `input_ids`); an image in one of the forms of [`gather_images`], where
    `image_embeds` of `(views, rows, dim)` are views of the image of which one is drawn; `text_teacher_embeds`,
    `(dim,)`, CLIP's embedding of the caption; `flip`, true if the mirror image may stand for the picture, drawn as a
    view is; and, from [`DrawnExamples`] or [`DrawnStream`], the seed `draw`. What else it has is left out.

    Args:
        max_text_length: longer captions are cut, in tokens.
        whole_text_share: the share of captions that is written as the filling of a caption prompt, `A picture of` and
            masks, so that only the image can tell.
        seed: where examples bring no `draw`, masks are drawn from this seed and the example itself, see
            [`example_key`]; then they are the same in every epoch.
    """

    processor: ProcessorMixin
    max_text_length: int = 64
    mask_ratio: float = 0.15
    mean_span: float = 3.0
    whole_text_share: float = 0.1
    seed: int = 0
    infill: TextInfilling = field(init=False, repr=False)

    def __post_init__(self):
        self.infill = TextInfilling(self.processor.tokenizer, self.mask_ratio, self.mean_span)

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        seeds = self.seeds_of(examples)
        pad = self.processor.tokenizer.pad_token_id
        captions = pad_rows(self._caption_ids(examples), pad)
        sources = list(self.infill(captions, mix(seeds, _CAPTION_MASKS)))
        targets = list(captions)
        for place in np.flatnonzero(uniforms(seeds, 1, _WHOLE)[:, 0] < self.whole_text_share):
            sources[place], targets[place] = self._as_prompt(captions[place], seeds[place])
        input_ids, labels = (torch.from_numpy(pad_rows(rows, pad)) for rows in (sources, targets))
        clean_input_ids = torch.from_numpy(captions)
        batch = {
            "input_ids": input_ids,
            "attention_mask": (input_ids != pad).long(),
            "labels": labels.masked_fill(labels == pad, -100),
            "clean_input_ids": clean_input_ids,
            "clean_attention_mask": (clean_input_ids != pad).long(),
        }
        images = gather_images(self._choose_views(examples, seeds), self.processor)
        if not images:
            raise ValueError(
                f"Expected 'image_embeds', 'pixel_values' or 'image' in each example, got {list(examples[0])}."
            )
        batch |= self._mirror(images, examples, seeds)
        if examples[0].get("text_teacher_embeds") is not None:
            teacher = [torch.as_tensor(example["text_teacher_embeds"]) for example in examples]
            batch["text_teacher_embeds"] = torch.stack(teacher).float()
        return batch

    def seeds_of(self, examples: list[dict[str, Any]]) -> np.ndarray:
        """Take the `draw` of each example, or make one of the seed and the example: `(examples,)`."""
        if "draw" in examples[0]:
            return np.array([example["draw"] for example in examples], dtype=np.uint64)
        return mix(self.seed, np.array([example_key(example) for example in examples], dtype=np.uint64))

    def _caption_ids(self, examples: list[dict[str, Any]]) -> list[list[int]]:
        if "input_ids" in examples[0]:
            return [example["input_ids"] for example in examples]
        if "caption" not in examples[0]:
            raise ValueError(f"Expected 'caption' or 'input_ids' in each example, got {list(examples[0])}.")
        captions = [example["caption"] for example in examples]
        return self.processor.tokenizer(captions, truncation=True, max_length=self.max_text_length).input_ids

    def _as_prompt(self, caption: np.ndarray, seed: np.uint64) -> tuple[list[int], list[int]]:
        """Write a caption as a caption prompt and the text that fills it, as token ids.

        So training sees what the model is asked for later.

        There are between a quarter of and twice as many masks as tokens to guess, so that more masks make longer
        texts, and no number of them is a stranger.
        """
        tokenizer, processor = self.processor.tokenizer, self.processor
        filled = processor.filled_captions([tokenizer.decode(caption, skip_special_tokens=True)])[0]
        unknown = tokenizer(filled.removeprefix(CAPTION_PREFIX), add_special_tokens=False)["input_ids"]
        [share] = 2 ** (3 * uniforms(np.array([seed]), 1, _HOW_MANY)[0] - 2)
        masks = min(math.ceil(share * len(unknown)), self.max_text_length // 2)
        [prompt] = processor.caption_prompts(1, masks)
        encoded = tokenizer([prompt, filled], truncation=True, max_length=self.max_text_length)
        return tuple(encoded["input_ids"])

    @staticmethod
    def _choose_views(examples: list[dict[str, Any]], seeds: np.ndarray) -> list[dict[str, Any]]:
        views = examples[0].get("image_embeds")
        if views is None or np.ndim(views) < 3:
            return examples
        chosen = draw_views(seeds, len(views))
        return [{"image_embeds": example["image_embeds"][view]} for example, view in zip(examples, chosen)]

    @staticmethod
    def _mirror(images: dict[str, Tensor], examples: list[dict[str, Any]], seeds: np.ndarray) -> dict[str, Tensor]:
        """Mirror the pixels of half of the examples that may be mirrored.

        It is the half whose mirror image `_choose_views` would take, if their rows were kept.
        """
        if "pixel_values" not in images:
            return images
        may = np.array([bool(example.get("flip")) for example in examples])
        mirrored = torch.from_numpy(may & (draw_views(seeds, 2) == 1))
        pixels = images["pixel_values"]
        return {"pixel_values": torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)}


@dataclass
class VLKDDataCollator:
    """Makes a finetuning batch with `labels`, for `Trainer` and `Seq2SeqTrainer`.

    ```python
    >>> collate = VLKDDataCollator(processor)
    >>> batch = collate([{"image_embeds": rows, "question": "what color is it?", "answer": "red"}])
    >>> processor.batch_decode(batch["labels"], skip_special_tokens=True)
    ['what color is it? Answer: red.']

    ```

    An example has a `question` and an `answer`, put into the processor's prompt; or a `caption`, to be written from
    the processor's caption prompt; or a `text` to read and a `target` to write; and an image in one of the forms of
    [`gather_images`], or none. Labels are -100 where the text is padded.

    Args:
        model: if given, `decoder_input_ids` are made from the labels here; label smoothing needs that, for it takes
            the labels away from the model.
        max_text_length: longer texts are cut, in tokens.
    """

    processor: ProcessorMixin
    model: PreTrainedModel | None = None
    max_text_length: int = 128

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        sources, targets = self._texts(examples)
        tokenizer = self.processor.tokenizer
        batch = self._tokenize(sources)
        labels = self._tokenize(targets)["input_ids"]
        batch["labels"] = labels.masked_fill(labels == tokenizer.pad_token_id, -100)
        if self.model is not None:
            batch["decoder_input_ids"] = self.model.prepare_decoder_input_ids_from_labels(batch["labels"])
        return batch | gather_images(examples, self.processor)

    def _texts(self, examples: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
        if "question" in examples[0]:
            questions = [example["question"] for example in examples]
            answers = [example["answer"] for example in examples]
            return self.processor.question_prompts(questions), self.processor.filled_questions(questions, answers)
        if "caption" in examples[0]:
            captions = [example["caption"] for example in examples]
            return self.processor.caption_prompts(len(captions)), self.processor.filled_captions(captions)
        if "text" not in examples[0] or "target" not in examples[0]:
            raise ValueError(
                "Expected 'question' and 'answer', 'caption', or 'text' and 'target' in each example, got "
                f"{list(examples[0])}."
            )
        return [example["text"] for example in examples], [example["target"] for example in examples]

    def _tokenize(self, texts: list[str]) -> dict[str, Tensor]:
        encoded = self.processor.tokenizer(
            texts, truncation=True, max_length=self.max_text_length, padding=True, return_tensors="pt"
        )
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}
