"""Score files of predictions against official annotations, without any model."""

from pathlib import Path

from . import vqa_files
from .caption_files import read_captions, read_references
from .captioning import report_captions
from .report import Report
from .vqa_benchmark import read_answer_list, report_answers


def score_answer_files(
    predictions: str | Path,
    annotations: str | Path,
    questions: str | Path | None = None,
    seed: int = 0,
    answer_list: str | Path | None = None,
) -> Report:
    """Score predicted answers, `[{"question_id", "answer"}]`, as the official evaluator of VQAv2 does.

    Args:
        questions: checked against the annotations if given.
        seed: of the bootstrap.
        answer_list: a file of answers that a classifier could choose from; see [`report_answers`].

    Raises:
        EvaluationError: a file cannot be read, or they do not belong together; with the ids at fault.
    """
    answers, people = vqa_files.read_results(predictions), vqa_files.read_annotations(annotations)
    asked = None if questions is None else vqa_files.read_questions(questions)
    vqa_files.check_together(answers, people, asked, predictions, annotations, questions or "the questions")
    return report_answers(answers, people, seed, None if answer_list is None else read_answer_list(answer_list))


def score_caption_files(
    predictions: str | Path,
    annotations: str | Path,
    split: str | None = None,
    seed: int = 0,
) -> Report:
    """Score predicted captions, `[{"image_id", "caption"}]`, by COCO's metrics; those of NoCaps by domain, too.

    Args:
        split: of annotations that hold several, as Karpathy's do.
        seed: of the bootstrap.

    Raises:
        EvaluationError: a file cannot be read, or they do not belong together; with the ids at fault.
    """
    captions, references = read_captions(predictions), read_references(annotations, split)
    return report_captions(captions, references, seed, str(predictions))
