"""Questions about pictures, with the answers of people: reading them, examples to finetune on, and an evaluation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.trainer_utils import unwrap_peft_model

from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.json_files import name_ids
from modeling_vlkd.evaluation.picture_files import find_picture_files
from modeling_vlkd.evaluation.questions import make_question_set, refuse_overlong
from modeling_vlkd.evaluation.questions import read_questions as read_table
from modeling_vlkd.evaluation.vlkd_model import VLKDAdapter
from modeling_vlkd.evaluation.vqa_accuracy import answer_score, exact_score
from modeling_vlkd.evaluation.vqa_files import read_annotations, read_questions
from modeling_vlkd.processing_vlkd import VLKDProcessor


def read_answered_questions(
    questions: str | Path, annotations: str | Path | None = None, images: str | Path | None = None
) -> list[dict[str, Any]]:
    """Read questions with their pictures and answers.

    Args:
        questions: a CSV or JSON-lines file with the columns image, question and answer, or, with `images`, the
            questions of VQAv2 or OK-VQA, or Visual Genome's `question_answers.json`.
        annotations: the answers to the questions of VQAv2 or OK-VQA.
        images: the folder of their pictures, which are found by their ids.

    Returns:
        Rows of `image` (a path), `question`, `answers` (of all people, as they wrote them), `answer` (the commonest)
        and `place` (for messages).

    Raises:
        FileNotFoundError, ValueError: a file cannot be read or has no such column; questions have no answers, or no
            picture; with lines or ids.
    """
    if images is None:
        if annotations is not None:
            raise ValueError(f"{annotations} names pictures by their ids; give the folder of the pictures as well.")
        return [row | {"answers": [row["answer"]]} for row in read_table(questions)]
    asked, answered = read_questions(questions), read_annotations(annotations or questions)
    if missing := [number for number in asked if number not in answered]:
        raise EvaluationError(
            f"{annotations}: there are no answers to {name_ids(missing)} of {questions}; give files of one split."
        )
    if empty := [number for number in asked if not any(map(str.strip, answered[number].answers))]:
        raise EvaluationError(
            f"{annotations or questions}: all answers are empty to {name_ids(empty)}; take these out."
        )
    paths = find_picture_files(images, (question.image_id for question in asked.values()))
    rows = []
    for number in asked:
        answers = [answer.strip() for answer in answered[number].answers if answer.strip()]
        row = {"image": str(paths[asked[number].image_id]), "question": asked[number].question, "answers": answers}
        rows.append(row | {"answer": Counter(answers).most_common(1)[0][0], "place": f"Question {number}"})
    return rows


class QuestionExamples(torch.utils.data.Dataset):
    """Questions with their pictures and weighted answers, as [`WeightedAnswersCollator`] takes them.

    Args:
        rows: as [`read_answered_questions`] gives them.
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
            ValueError: a picture cannot be read, or a question with an answer is longer than the model reads.
        """
        model = unwrap_peft_model(model)
        pairs = [(row["question"], answer, row["place"]) for row in rows for answer in dict.fromkeys(row["answers"])]
        questions, answers, places = (list(column) for column in zip(*pairs))
        refuse_overlong(questions, answers, places, processor)
        if not model.config.freeze_vision_tower:
            return cls(rows)
        looked_at = make_question_set(rows, model, processor)
        return cls(rows, looked_at.image_embeds, looked_at.image_index)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        example = {"question": row["question"], "answers": weigh_answers(row["answers"])}
        if self.image_embeds is None or self.image_index is None:
            return example | {"image": row["image"]}
        return example | {"image_embeds": self.image_embeds[self.image_index[index]]}


def weigh_answers(answers: Sequence[str]) -> dict[str, float]:
    """Weigh each different answer by the share of people who gave it; "Red" and "red" are different here.

    Answers are taken as they were written, because the sources that are followed name no normalization.
    """
    return {answer: count / len(answers) for answer, count in Counter(answers).items()}


class AnswerEvaluation:
    """Asks a model all questions of some examples; its metric is `vqa_accuracy`, from 0 to 1.

    An answer to a question that several people answered is scored as VQAv2 scores it, see [`answer_score`]; with one
    known answer it is right if it is the same, upper and lower case alike.
    """

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
        scores = [score_one(said, row["answers"]) for said, row in zip(predictions, self.examples.rows, strict=True)]
        return {"vqa_accuracy": sum(scores) / len(scores)}


def score_one(said: str, answers: Sequence[str]) -> float:
    """Score an answer against those of people, 0 to 1."""
    return answer_score(said, answers) if len(answers) > 1 else exact_score(said, answers[0])
