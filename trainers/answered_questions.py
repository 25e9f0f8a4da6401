"""Questions about pictures, with the answers of people: examples to finetune on, and an evaluation of answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.trainer_utils import unwrap_peft_model

from modeling_vlkd.evaluation.metrics import exact_match
from modeling_vlkd.evaluation.questions import make_question_set, refuse_overlong
from modeling_vlkd.evaluation.vlkd_model import VLKDAdapter
from modeling_vlkd.processing_vlkd import VLKDProcessor


class QuestionExamples(torch.utils.data.Dataset):
    """Questions with their pictures and weighted answers, as [`VLKDDataCollator`] takes them.

    Args:
        rows: `image` (a path), `question`, `answer`, `place` (for messages).
        image_embeds: rows of the pictures, `(pictures, rows, dim)`; None to look at the pictures at each step.
        image_index: for each question, which of these pictures it is about.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        image_embeds: Tensor | None = None,
        image_index: Sequence[int] | None = None,
    ):
        self.rows, self.image_embeds, self.image_index = rows, image_embeds, image_index

    @classmethod
    def of(
        cls, rows: Sequence[Mapping[str, Any]], model: PreTrainedModel, processor: VLKDProcessor
    ) -> "QuestionExamples":
        """Look at each picture once and keep its rows, if the tower is frozen; otherwise only check the texts.

        Raises:
            ValueError: a picture cannot be read, or a question is longer than the model reads.
        """
        model = unwrap_peft_model(model)
        if model.config.freeze_vision_tower:
            found = make_question_set(rows, model, processor)
            return cls(rows, found.image_embeds, found.image_index)
        questions, answers, places = ([row[name] for row in rows] for name in ("question", "answer", "place"))
        refuse_overlong(questions, answers, places, processor)
        return cls(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        example = {"question": row["question"], "answer": row["answer"]}
        if self.image_embeds is None or self.image_index is None:
            return example | {"image": row["image"]}
        return example | {"image_embeds": self.image_embeds[self.image_index[index]]}


class AnswerEvaluation:
    """Asks a model all questions of some examples; its metric is `vqa_accuracy`, the share answered right."""

    def __init__(self, examples: QuestionExamples, processor: VLKDProcessor):
        self.examples, self.processor = examples, processor

    def __len__(self) -> int:
        return len(self.examples)

    def predict(self, model: PreTrainedModel, positions: Sequence[int], batch_size: int) -> list[str]:
        rows = [self.examples.rows[position] for position in positions]
        images: Any = self.examples.image_embeds
        if self.examples.image_index is not None:
            index = [self.examples.image_index[position] for position in positions]
        else:
            places = {path: place for place, path in enumerate(dict.fromkeys(row["image"] for row in rows))}
            images, index = iter(places), [places[row["image"]] for row in rows]
        adapter = VLKDAdapter(model, self.processor, batch_size)
        return [answer.text for answer in adapter.answer(images, [row["question"] for row in rows], index)]

    def score(self, predictions: Sequence[str]) -> dict[str, float]:
        """Compute the share of answers that are exactly right, upper and lower case alike."""
        known = [row["answer"].lower() for row in self.examples.rows]
        return {"vqa_accuracy": exact_match([text.lower() for text in predictions], known)}
