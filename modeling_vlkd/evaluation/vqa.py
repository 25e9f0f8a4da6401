"""Visual question answering: how many questions about pictures a model answers right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from modeling_vlkd.processing_vlkd import VLKDProcessor

from .metrics import exact_match
from .protocol import Answer, VisionLanguageModel
from .vlkd_model import VLKDAdapter


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
        """Take every `step`-th question from the `first` on: the share of one process."""
        chosen, index = slice(first, None, step), self.image_index
        if index is None and self.image_embeds is not None:
            index = range(len(self.questions))
        part_index = None if index is None else list(index)[chosen]
        return QuestionSet(self.questions[chosen], self.answers[chosen], self.image_embeds, part_index)


@dataclass
class VQAResult:
    """What a model answered.

    Args:
        accuracy: share of questions answered exactly right, upper and lower case alike.
        answers: one for each question.
    """

    accuracy: float
    answers: list[Answer]


def evaluate_vqa(model: VisionLanguageModel, question_set: QuestionSet) -> VQAResult:
    """Ask a model all questions of a set, and compare."""
    answers = model.answer(question_set.image_embeds, question_set.questions, question_set.image_index)
    predictions = [answer.text.lower() for answer in answers]
    return VQAResult(exact_match(predictions, [answer.lower() for answer in question_set.answers]), answers)


def answer_accuracy(
    model: PreTrainedModel, processor: VLKDProcessor, question_set: QuestionSet, **generate_kwargs: Any
) -> float:
    """Measure which share of questions a VLKD answers exactly right, upper and lower case alike.

    Args:
        generate_kwargs: as those of [`VLKDAdapter`].
    """
    return evaluate_vqa(VLKDAdapter(model, processor, **generate_kwargs), question_set).accuracy
