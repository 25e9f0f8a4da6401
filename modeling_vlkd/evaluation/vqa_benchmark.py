"""The benchmark of visual question answering: official files of questions, a model's answers, the official figure."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import vqa_files
from .errors import EvaluationError
from .json_entries import refuse
from .json_files import read_json_file
from .picture_files import find_picture_files
from .protocol import VisionLanguageModel
from .questions import read_questions
from .report import Report, ScoredExample, bootstrap_interval
from .shown_pictures import ShownPictures
from .vqa_accuracy import VQAScores, exact_score, normalize_answer, percent, score_answers
from .vqa_files import VQAAnnotation, VQAQuestion, check_together


ACCURACY, EXACT_MATCH = "VQA accuracy", "exact match"  # of several annotators, of one
IN_DOMAIN, OUT_OF_DOMAIN = "in-domain", "out-of-domain"
TABLES = (".csv", ".jsonl")


@dataclass
class VQABenchmark:
    """Questions about pictures, to be answered by a [`VisionLanguageModel`].

    Args:
        questions: by their ids.
        shown: the pictures.
        annotations: by the ids of their questions; None for a split whose answers only a server knows.
        answer_list: answers that a classifier could choose from; see [`report_answers`].

    Raises:
        EvaluationError: questions lack annotations or pictures, or the other way round; with their ids.
    """

    questions: Mapping[int, VQAQuestion]
    shown: ShownPictures
    annotations: Mapping[int, VQAAnnotation] | None = None
    answer_list: Collection[str] | None = None
    task: str = "vqa"

    def __post_init__(self):
        self.ids = list(self.questions)
        lost = [number for number, question in self.questions.items() if question.image_id not in self.shown.files]
        refuse(lost, "The pictures", "there is none for", "give the folder of their split")
        if self.annotations is not None:
            asked = dict.fromkeys(self.ids, "")
            check_together(asked, self.annotations, self.questions, "the questions")

    def order(self) -> list[int]:
        """Put questions about one picture side by side."""
        places = {image: place for place, image in enumerate(dict.fromkeys(self.images_of(self.ids)))}
        return sorted(range(len(self.ids)), key=lambda position: places[self.questions[self.ids[position]].image_id])

    def images_of(self, ids: Sequence[int]) -> list[int]:
        return [self.questions[number].image_id for number in ids]

    def predict(self, model: VisionLanguageModel, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Answer questions; each picture among them is looked at once."""
        asked = [self.questions[self.ids[position]] for position in positions]
        places = {image: place for place, image in enumerate(dict.fromkeys(each.image_id for each in asked))}
        questions = [each.question for each in asked]
        if self.shown.hidden:
            answers = model.answer(None, questions)
        else:
            index = [places[each.image_id] for each in asked]
            answers = model.answer(model.look(self.shown.show(places)), questions, index)
        return [{"answer": answer.text, "score": answer.score} for answer in answers]

    def report(self, rows: Sequence[dict[str, Any]], seed: int) -> Report:
        answers = {number: row["answer"] for number, row in zip(self.ids, rows, strict=True)}
        if self.annotations is None:
            return Report(self.task, len(answers), {})
        report = report_answers(answers, self.annotations, seed, self.answer_list)
        for place, scored in enumerate(report.scored):
            question = self.questions[int(scored.id)]
            image = self.shown.shown_name(question.image_id)
            report.scored[place] = replace(scored, asked=question.question, image=image)
        return report


def read_benchmark(
    questions: str | Path,
    annotations: str | Path | None = None,
    images: str | Path | None = None,
    control: str | None = None,
    seed: int = 0,
    answer_list: str | Path | None = None,
) -> VQABenchmark:
    """Read questions and find their pictures.

    Args:
        questions: in an official format, or a table, CSV or JSON lines, of image, question and answer.
        annotations, images: beside official questions, the answers, if they are known, and the folder of pictures.
        control, seed: as those of [`ShownPictures`].
        answer_list: a file; see [`report_answers`].

    Raises:
        EvaluationError, ValueError, FileNotFoundError: a file or picture is missing or wrong, by its line or id.
    """
    listed = None if answer_list is None else read_answer_list(answer_list)
    if Path(questions).suffix in TABLES:
        if annotations is not None or images is not None:
            raise EvaluationError(f"{questions} is a table with answers and pictures; give nothing else beside it.")
        return VQABenchmark(*read_table(questions, control, seed), listed)
    if images is None:
        raise EvaluationError(f"{questions} holds no pictures, only their ids; give the folder of the pictures too.")
    asked = vqa_files.read_questions(questions)
    people = None if annotations is None else vqa_files.read_annotations(annotations)
    files = find_picture_files(images, (each.image_id for each in asked.values()))
    return VQABenchmark(asked, ShownPictures(files, control, seed), people, listed)


def read_table(
    path: str | Path, control: str | None, seed: int
) -> tuple[dict[int, VQAQuestion], ShownPictures, dict[int, VQAAnnotation]]:
    """Read a table of image, question and answer; questions and pictures are numbered from 1, in its order."""
    rows = read_questions(path)
    images = {image: number for number, image in enumerate(dict.fromkeys(row["image"] for row in rows), 1)}
    asked, people = {}, {}
    for number, row in enumerate(rows, 1):
        image = images[row["image"]]
        asked[number] = VQAQuestion(number, image, row["question"])
        people[number] = VQAAnnotation(number, image, "", "", (row["answer"],))
    files = {number: Path(image) for image, number in images.items()}
    return asked, ShownPictures(files, control, seed), people


def report_answers(
    answers: Mapping[int, str],
    annotations: Mapping[int, VQAAnnotation],
    seed: int = 0,
    answer_list: Collection[str] | None = None,
) -> Report:
    """Score answers: as VQAv2 does where several people answered each question, by exact match where one did.

    Args:
        answers: by the ids of their questions, the same as those of the annotations.
        seed: of the bootstrap.
        answer_list: answers that a classifier could choose from, such as the 3,129 commonest of VQAv2. Questions are
            in-domain if their best answer, the one that most people gave, is one of them, and out-of-domain if not, as
            VL-T5 divides Karpathy's test split (arXiv:2102.02779, section 5.2).
    """
    single = all(len(known.answers) == 1 for known in annotations.values())
    scores = score_exactly(answers, annotations) if single else score_answers(answers, annotations)
    groups: dict[str, dict[str, Any]] = {}
    for name, group in (("by_answer_type", scores.by_answer_type), ("by_question_type", scores.by_question_type)):
        if set(group) != {""}:  # untold
            groups[name] = group
    if answer_list is not None:
        groups["by_domain"] = accuracy_by_domain(scores.each, annotations, answer_list)
    interval = bootstrap_interval(list(scores.each.values()), seed)
    facts = {"measure": EXACT_MATCH if single else ACCURACY}
    scored = [
        ScoredExample(number, score / 100, answers[number], list(dict.fromkeys(annotations[number].answers)))
        for number, score in scores.each.items()
    ]
    return Report("vqa", len(answers), scores.overall, groups, {"accuracy": interval}, facts, scored)


def score_exactly(answers: Mapping[int, str], annotations: Mapping[int, VQAAnnotation]) -> VQAScores:
    """Score answers against the one answer that is known to each question, upper and lower case alike, in percent."""
    check_together(answers, annotations)
    each = {number: 100 * exact_score(answers[number], known.answers[0]) for number, known in annotations.items()}
    by_question, by_answer = defaultdict(list), defaultdict(list)
    for number, score in each.items():
        by_question[annotations[number].question_type].append(score / 100)
        by_answer[annotations[number].answer_type].append(score / 100)
    return VQAScores(
        percent([score / 100 for score in each.values()]),
        {name: percent(members) for name, members in by_question.items()},
        {name: percent(members) for name, members in by_answer.items()},
        each,
    )


def accuracy_by_domain(
    each: Mapping[int, float], annotations: Mapping[int, VQAAnnotation], answer_list: Collection[str]
) -> dict[str, float]:
    """Average over the questions whose best answer is in a list, and over the others."""
    listed = {normalize_answer(answer) for answer in answer_list}
    members = defaultdict(list)
    for number, score in each.items():
        counts = Counter(map(normalize_answer, annotations[number].answers))
        best = {answer for answer, count in counts.items() if count == max(counts.values())}
        members[IN_DOMAIN if best & listed else OUT_OF_DOMAIN].append(score / 100)
    return {name: percent(members[name]) for name in (IN_DOMAIN, OUT_OF_DOMAIN) if members[name]}


def read_answer_list(path: str | Path) -> list[str]:
    """Read answers to choose from: a JSON list, or an object with their numbers such as `trainval_ans2label.json`.

    Raises:
        EvaluationError: the file is another.
    """
    path = Path(path)
    remedy = 'give a list of answers, ["yes", "red", ...]'
    content = read_json_file(path, remedy)
    numbered = isinstance(content, dict) and all(isinstance(number, int) for number in content.values())
    answers = list(content) if numbered or isinstance(content, list) else []
    if not answers or not all(isinstance(answer, str) for answer in answers):
        raise EvaluationError(f"{path} holds no answers; {remedy}.")
    return answers
