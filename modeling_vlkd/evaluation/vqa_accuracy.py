"""VQA accuracy, equal to the last digit to the official evaluator of VQAv2.

Source: github.com/GT-Vision-Lab/VQA, PythonEvaluationTools/vqaEvaluation/vqaEval.py, for Python 2.7. What looks odd
here is odd there, and changes the figures: those of two models can be compared only if both are counted alike.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache

from .errors import EvaluationError
from .json_files import name_ids
from .vqa_files import VQAAnnotation, check_together


FULL_SCORE_AT = 3  # as many of the other annotators have to give the answer

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # apostrophes and colons stay
COMMA_IN_NUMBER = re.compile("[0-9],[0-9]")  # "1,000"
PERIOD = re.compile(r"\.(?![0-9])")  # "u.s." and "3.", not "3.5" or ".5"
MOST_PERIODS = 32  # there, a flag (`re.UNICODE`, which is 32) stands where the number of replacements belongs

ARTICLES = {"a", "an", "the"}
DIGITS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
CONTRACTIONS = """
    'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've
    must've mustn't needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've
    somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've
    something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've wasn't
    we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll
    who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd
    you'd've you'll you're you've
"""


def without_one_apostrophe(word: str) -> list[str]:
    """Leave out each apostrophe in turn, as in "couldn't've": "couldnt've", "couldn'tve"."""
    return [word[:place] + word[place + 1 :] for place, letter in enumerate(word) if letter == "'"]


SPELLINGS = {wrong: right for right in CONTRACTIONS.split() for wrong in without_one_apostrophe(right)}
SPELLINGS["somebody'd"] = "somebodyd"  # the wrong way round, there as here


@dataclass(frozen=True)
class VQAScores:
    """Accuracies in percent, rounded to 2 digits.

    Args:
        overall: the mean over all questions.
        by_question_type, by_answer_type: the mean over the questions of each type.
        each: that of each question, by its id.
    """

    overall: float
    by_question_type: dict[str, float]
    by_answer_type: dict[str, float]
    each: dict[int, float]


def clean_spaces(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def clean_punctuation(text: str) -> str:
    """Take punctuation away where it stands beside a space or the text has a comma in a number; else put a space."""
    cleaned = text
    has_long_number = COMMA_IN_NUMBER.search(text) is not None
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if beside_space or has_long_number else " ")
    return PERIOD.sub("", cleaned, count=MOST_PERIODS)


def clean_words(text: str) -> str:
    """Write words in lower case, numbers up to ten as digits, contractions with apostrophes, and no articles."""
    words = [DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join(SPELLINGS.get(word, word) for word in words if word not in ARTICLES)


@lru_cache(maxsize=2**16)  # the annotators of a data set give the same few answers again and again
def normalize_answer(text: str) -> str:
    """Bring an answer into the form in which answers are compared: "The two dogs, don't!" becomes "2 dogs don't"."""
    return clean_words(clean_punctuation(clean_spaces(text)))


def answer_score(answer: str, references: Sequence[str]) -> float:
    """Score one answer against those of the annotators, 0 to 1.

    Each annotator is left out in turn, and the score is the mean of min(number of others who agree / 3, 1): one, two,
    three or four of ten who agree give .3, .6, .9 or 1. Texts are normalized only where the annotators differ; where
    all wrote the same, upper case, articles and punctuation count.

    Args:
        references: one for each annotator. A single one scores 0, because nobody is left to agree.

    Raises:
        EvaluationError: there are no references.
    """
    if not references:
        raise EvaluationError(f"There are no references to compare the answer {answer!r:.60} with; give at least two.")
    answer, references = clean_spaces(answer), [clean_spaces(reference) for reference in references]
    if len(set(references)) > 1:
        answer, references = normalize_answer(answer), [normalize_answer(reference) for reference in references]
    agree = [reference == answer for reference in references]
    scores = [min(1, (sum(agree) - left_out) / FULL_SCORE_AT) for left_out in agree]
    return add_up(scores) / len(scores)


def exact_score(answer: str, reference: str) -> float:
    """Score an answer against the only one that is known: 1 if it is the same, upper and lower case alike, or 0."""
    return float(answer.strip().lower() == reference.strip().lower())


def score_answers(answers: Mapping[int, str], annotations: Mapping[int, VQAAnnotation]) -> VQAScores:
    """Compute the accuracy over all questions, over those of each type, and of each one.

    Args:
        answers: the predictions, by the ids of their questions; one for each annotation.

    Raises:
        EvaluationError: predictions and annotations are not of the same questions, or one has a single annotator.
    """
    check_together(answers, annotations)
    if alone := [number for number, annotation in annotations.items() if len(annotation.answers) < 2]:
        raise EvaluationError(
            "VQA accuracy asks how many others agree with each annotator, and there are fewer than two answers to "
            f"{name_ids(alone)}; measure such files by exact match."
        )
    scores = {number: answer_score(answers[number], known.answers) for number, known in annotations.items()}
    question_types, answer_types = defaultdict(list), defaultdict(list)
    for number, score in scores.items():  # in the order of the annotations, because sums depend on it
        question_types[annotations[number].question_type].append(score)
        answer_types[annotations[number].answer_type].append(score)
    return VQAScores(
        overall=percent(list(scores.values())),
        by_question_type={name: percent(members) for name, members in question_types.items()},
        by_answer_type={name: percent(members) for name, members in answer_types.items()},
        each={number: percent([score]) for number, score in scores.items()},
    )


def percent(scores: Sequence[float]) -> float:
    """Average scores, in percent, rounded to 2 digits as Python 2 rounds: 3.125 becomes 3.13, not 3.12."""
    exact = Decimal(100 * add_up(scores) / len(scores))
    return float(exact.quantize(Decimal("0.01"), ROUND_HALF_UP))


def add_up(scores: Iterable[float]) -> float:
    """Add in order; `sum` corrects its rounding errors from Python 3.12 on, and the official figure has them."""
    total = 0.0
    for score in scores:
        total += score
    return total
