"""Score files of predictions against official annotations, without any model."""

from pathlib import Path

from . import vqa_files
from .caption_files import read_captions, read_references
from .captioning import evaluate_captions
from .report import Report, bootstrap_interval
from .vqa_accuracy import score_answers


MEANS = ("CIDEr", "ROUGE_L")  # of COCO's metrics, those that are means over pictures


def score_answer_files(
    predictions: str | Path, annotations: str | Path, questions: str | Path | None = None, seed: int = 0
) -> Report:
    """Score predicted answers, `[{"question_id", "answer"}]`, as the official evaluator of VQAv2 does.

    Args:
        questions: checked against the annotations if given.
        seed: of the bootstrap.

    Raises:
        EvaluationError: a file cannot be read, or they do not belong together; with the ids at fault.
    """
    answers, people = vqa_files.read_results(predictions), vqa_files.read_annotations(annotations)
    asked = None if questions is None else vqa_files.read_questions(questions)
    vqa_files.check_together(answers, people, asked, predictions, annotations, questions or "the questions")
    scores = score_answers(answers, people)
    return Report(
        "vqa",
        len(answers),
        scores.overall,
        {"by_answer_type": scores.by_answer_type, "by_question_type": scores.by_question_type},
        {"accuracy": bootstrap_interval(list(scores.each.values()), seed)},
    )


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
    captions = read_captions(predictions)
    references = read_references(annotations, split)
    result = evaluate_captions(captions, references, source=str(predictions))
    groups = {} if result.by_domain is None else {"by_domain": result.by_domain}
    intervals = {name: bootstrap_interval([each[name] for each in result.each.values()], seed) for name in MEANS}
    return Report("captioning", len(captions), result.overall, groups, intervals, {"tokenizer": result.tokenizer})
