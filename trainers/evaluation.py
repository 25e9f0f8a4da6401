"""Zero-shot evaluation of a model on questions about images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from modeling_vlkd.generation_vlkd import generate_answers
from modeling_vlkd.processing_vlkd import VLKDProcessor

from .metrics import exact_match


@dataclass
class QuestionSet:
    """Questions about images whose rows are known, and their answers.

    Args:
        questions, answers: one answer a question.
        image_embeds: `(images, rows, dim)`; None for questions that text alone shall answer.
        image_index: for each question, which image it is about; question i is about image i by default.
    """

    questions: Sequence[str]
    answers: Sequence[str]
    image_embeds: Tensor | None = None
    image_index: Sequence[int] | None = None

    def part(self, first: int, step: int) -> "QuestionSet":
        """Every `step`-th question from the `first`; the share of one process."""
        chosen, index = slice(first, None, step), self.image_index
        if index is None and self.image_embeds is not None:
            index = range(len(self.questions))
        part_index = None if index is None else list(index)[chosen]
        return QuestionSet(self.questions[chosen], self.answers[chosen], self.image_embeds, part_index)


@torch.no_grad()
def answer_accuracy(
    model: PreTrainedModel, processor: VLKDProcessor, question_set: QuestionSet, **generate_kwargs: Any
) -> float:
    """Share of questions answered exactly right, upper and lower case alike."""
    was_training = model.training
    model.eval()
    ranked = generate_answers(
        model,
        processor,
        question_set.questions,
        image_embeds=question_set.image_embeds,
        image_index=question_set.image_index,
        **generate_kwargs,
    )
    model.train(was_training)
    predictions = [answers[0]["answer"].lower() for answers in ranked]
    return exact_match(predictions, [answer.lower() for answer in question_set.answers])
