"""Files of visual question answering: questions, annotations with the answers of people, and predicted answers.

The formats are those of VQAv2 (visualqa.org, github.com/GT-Vision-Lab/VQA), which OK-VQA shares. Annotations may have
one `answer` instead of a list of them, and Visual Genome's `question_answers.json` is read as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .json_entries import (
    ANNOTATED_ANSWERS,
    PREDICTED_ANSWERS,
    QUESTIONS,
    VISUAL_GENOME,
    Kind,
    check_field,
    has_text,
    index_entries,
    number_objects,
    refuse,
    refuse_other_split,
    take_entries,
)
from .json_files import read_json_file, write_json_file


MOST_CHARACTERS = 1000  # of a predicted answer; what is longer comes from a model that does not stop


@dataclass(frozen=True)
class VQAQuestion:
    """A question about a picture; both ids are those of the data set."""

    question_id: int
    image_id: int
    question: str


@dataclass(frozen=True)
class VQAAnnotation:
    """What people answered to a question.

    Args:
        question_type: its first words, such as "what color is the"; a field of knowledge in OK-VQA; "" where untold.
        answer_type: "yes/no", "number" or "other"; "" where untold.
        answers: one for each person, ten in VQAv2 and OK-VQA.
    """

    question_id: int
    image_id: int
    question_type: str
    answer_type: str
    answers: Sequence[str]


def read_questions(path: str | Path) -> dict[int, VQAQuestion]:
    """Read a file of questions, `{"questions": [{"question_id", "image_id", "question"}]}`, by their ids.

    Raises:
        EvaluationError: the file cannot be read or is another, or something in it is missing, wrong or twice there.
    """
    rows = read_rows(Path(path), QUESTIONS)
    return {number: VQAQuestion(number, row["image_id"], row["question"]) for number, row in rows.items()}


def read_annotations(path: str | Path) -> dict[int, VQAAnnotation]:
    """Read annotations by the ids of their questions.

    They are `{"annotations": [{"question_id", "image_id", "question_type", "answer_type", "answers": [{"answer"}]}]}`.

    Raises:
        EvaluationError: as for [`read_questions`], or a question has no answers.
    """
    path = Path(path)
    rows = read_rows(path, ANNOTATED_ANSWERS)
    without = [number for number, row in rows.items() if not row["answers"]]
    refuse(without, path, "'answers' is empty in", "give annotations with answers")
    wrong = [number for number, row in rows.items() if not all(has_text(each, "answer") for each in row["answers"])]
    refuse(wrong, path, "'answers' holds something else than texts in", 'write [{"answer": "red"}, ...]')
    return {number: make_annotation(row) for number, row in rows.items()}


def make_annotation(row: dict[str, Any]) -> VQAAnnotation:
    answers = tuple(each["answer"] for each in row["answers"])
    return VQAAnnotation(row["question_id"], row["image_id"], row["question_type"], row["answer_type"], answers)


def read_results(path: str | Path) -> dict[int, str]:
    """Read predicted answers, `[{"question_id", "answer"}]`, by the ids of their questions.

    Raises:
        EvaluationError: as for [`read_questions`], or an answer has more than 1,000 characters.
    """
    path = Path(path)
    return take_answers(read_rows(path, PREDICTED_ANSWERS), path)


def write_results(path: str | Path, answers: Mapping[int, str]):
    """Write predicted answers as EvalAI takes them, sorted by id; completely or, if that fails, not at all.

    Raises:
        EvaluationError: there are none, or one that [`read_results`] refuses, or the file cannot be written.
    """
    path = Path(path)
    entries = [{"question_id": number, "answer": answer} for number, answer in answers.items()]
    checked = take_answers(index_entries(entries, path, PREDICTED_ANSWERS), path)
    write_json_file(path, [{"question_id": number, "answer": checked[number]} for number in sorted(checked)])


def take_answers(rows: Mapping[int, dict[str, Any]], path: Path) -> dict[int, str]:
    """Take the predicted answers out of entries; stop at those that are too long."""
    overlong = [number for number, row in rows.items() if len(row["answer"]) > MOST_CHARACTERS]
    refuse(overlong, path, f"'answer' has more than {MOST_CHARACTERS:,} characters in", "give the answer alone")
    return {number: row["answer"] for number, row in rows.items()}


def read_rows(path: Path, kind: Kind) -> dict[int, dict[str, Any]]:
    """Read the entries of a file of one kind, checked, by the ids of their questions."""
    content = read_json_file(path, f"give {kind}")
    if VISUAL_GENOME.fits(content) and kind is not PREDICTED_ANSWERS:
        entries = flatten_visual_genome(content, path)
    else:
        entries = take_entries(content, path, kind)
    if kind is ANNOTATED_ANSWERS:
        entries = [list_answers(entry) for entry in entries]
    return index_entries(entries, path, kind)


def flatten_visual_genome(pictures: Sequence[Any], path: Path) -> list[dict[str, Any]]:
    """Turn `[{"id", "qas": [{"qa_id", "question", "answer"}]}]`, an entry a picture, into an entry a question."""
    rows = number_objects(pictures, path)
    for field, wanted in VISUAL_GENOME.fields.items():
        check_field(rows, field, wanted, path, "entry", "entries")
    pairs = [(row["id"], pair) for row in rows.values() for pair in row["qas"]]
    numbered = number_objects([pair for _, pair in pairs], path)
    check_field(numbered, "qa_id", int, path, "pair", "pairs")
    return [pair | {"question_id": pair["qa_id"], "image_id": image_id} for image_id, pair in pairs]


def list_answers(entry: Any) -> Any:
    """Make a list of the one `answer` of an entry that has no `answers`; its types may be untold."""
    if not isinstance(entry, dict) or "answers" in entry or "answer" not in entry:
        return entry
    return {"question_type": "", "answer_type": "", **entry, "answers": [{"answer": entry["answer"]}]}


def check_together(
    answers: Mapping[int, str],
    annotations: Mapping[int, VQAAnnotation],
    questions: Mapping[int, VQAQuestion] | None = None,
    answers_name: str | Path = "the results",
    annotations_name: str | Path = "the annotations",
    questions_name: str | Path = "the questions",
):
    """Stop unless all annotated questions, and no others, have predictions.

    Where questions are given too, the annotated ones have to be among them, with the same pictures.

    Args:
        answers_name, annotations_name, questions_name: the files, for messages.

    Raises:
        EvaluationError: with the ids of the questions.
    """
    refuse_other_split(answers, answers_name, annotations, annotations_name)
    unknown = [number for number in answers if number not in annotations]
    refuse(unknown, answers_name, f"there is no entry in {annotations_name} for", "take these out, or give all of it")
    missing = [number for number in annotations if number not in answers]
    refuse(missing, annotations_name, f"there is no prediction in {answers_name} for", "answer all questions")
    if questions is None:
        return
    refuse_other_split(questions, questions_name, annotations, annotations_name)
    missing = [number for number in annotations if number not in questions]
    refuse(missing, annotations_name, f"there is no entry in {questions_name} for", "give all questions of the split")
    moved = [number for number, known in annotations.items() if known.image_id != questions[number].image_id]
    refuse(moved, annotations_name, f"other pictures stand in {questions_name} for", "give files of one release")
