"""VQA accuracy: values known from its definition, and parity with a version written out in a straight line."""

import random

import pytest

from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.vqa_accuracy import answer_score, exact_score, normalize_answer, score_answers
from modeling_vlkd.evaluation.vqa_files import VQAAnnotation


def annotation(number, answers, question_type="what is", answer_type="other"):
    return VQAAnnotation(number, number, question_type, answer_type, answers)


def agreeing(count, answer="red"):
    """Ten annotators, of whom `count` gave the answer."""
    return [answer] * count + [f"else {number}" for number in range(10 - count)]


@pytest.mark.parametrize(("count", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (9, 1), (10, 1)])
def test_each_annotator_is_left_out_in_turn(count, score):
    assert answer_score("red", agreeing(count)) == pytest.approx(score, abs=1e-12)


def test_nothing_is_normalized_where_all_annotators_agree():
    assert answer_score("Red", ["Red"] * 10) == 1
    assert answer_score("red", ["Red"] * 10) == 0
    assert answer_score("the Red.", ["Red"] * 10) == 0
    assert answer_score("red", ["Red"] * 9 + ["blue"]) == 1


def test_the_only_known_answer_is_met_by_the_same_one_in_upper_or_lower_case():
    assert [exact_score(said, "Red") for said in (" red\n", "RED", "a red", "")] == [1, 1, 0, 0]


def test_line_breaks_and_tabs_are_spaces_before_annotators_are_compared():
    assert answer_score(" hot\tdog\n", ["hot\ndog", " hot dog "] * 5) == 1
    assert answer_score("Hot dog", ["hot\ndog", " hot dog "] * 5) == 0  # equal annotators, so upper case counts


def test_few_annotators_score_what_the_definition_gives():
    assert answer_score("red", ["red"]) == 0
    assert answer_score("red", ["red", "red"]) == pytest.approx(1 / 3)
    with pytest.raises(EvaluationError, match="no references to compare the answer 'red' with; give at least two"):
        answer_score("red", [])


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The two dogs, don't!", "2 dogs don't"),
        ("an A the", ""),
        ("None", "0"),
        ("ten eleven", "10 eleven"),
        ("dont", "don't"),
        ("DONT", "don't"),
        ("couldnt've couldn'tve", "couldn't've couldn't've"),
        ("couldntve", "couldntve"),  # both apostrophes are missing: not in the official table
        ("im ive", "im ive"),  # there under "Im" and "Ive", which no word in lower case equals
        ("somebody'd", "somebodyd"),
        ("black/white", "black white"),
        ("black/ white", "black white"),
        ("t-shirt", "t shirt"),
        ("t-shirt, red-blue -", "tshirt redblue"),  # a mark beside a space is taken out everywhere
        ("1,000 t-shirts", "1000 tshirts"),  # as are all marks of a text with a comma in a number
        ("red,blue", "red blue"),
        ("what?", "what"),  # a space in its place, lost at the end
        ("U.S.A.", "usa"),
        ("3.5", "3.5"),
        ("3. 5", "3 5"),
        ("v.2", "v.2"),
        ("12:30 o'clock", "12:30 o'clock"),
        ("50% & 'so' *", "50% & 'so' *"),
        ("a\u0663,\u0664", "a\u0663 \u0664"),  # only 0 to 9 are digits
        ("x" + 40 * ".", "x" + 8 * "."),  # 32 at most
        ("  a\tbig\n\ncat ", "big cat"),
        ("", ""),
    ],
)
def test_normalized_answers(text, normalized):
    assert normalize_answer(text) == normalized


def test_scores_are_percent_with_two_digits_of_each_type():
    annotations = {
        3: annotation(3, agreeing(3), "what color", "other"),
        1: annotation(1, agreeing(10, "Yes"), "is it", "yes/no"),
        2: annotation(2, agreeing(2), "what color", "other"),
    }
    scores = score_answers({1: "Yes", 2: "The red.", 3: "red"}, annotations)
    assert scores.overall == 83.33
    assert scores.by_question_type == {"what color": 75.0, "is it": 100.0}
    assert scores.by_answer_type == {"other": 75.0, "yes/no": 100.0}
    assert scores.each == {1: 100.0, 2: 60.0, 3: 90.0}


def test_halves_are_rounded_up_as_by_python_2():
    counts = [2, 3, 4] + 13 * [0]  # .6 + .9 + 1 of 16 questions are 15.625 %, which `round` makes 15.62
    annotations = {number: annotation(number, agreeing(count)) for number, count in enumerate(counts)}
    assert score_answers(dict.fromkeys(annotations, "red"), annotations).overall == 15.63


def test_single_answers_and_other_questions_are_refused():
    with pytest.raises(
        EvaluationError, match="fewer than two answers to question 7; measure such files by exact match"
    ):
        score_answers({7: "red", 8: "red"}, {7: annotation(7, ["red"]), 8: annotation(8, agreeing(4))})
    with pytest.raises(EvaluationError, match="the results: there is no entry in the annotations for question 8"):
        score_answers({7: "red", 8: "red"}, {7: annotation(7, agreeing(4))})
    with pytest.raises(EvaluationError, match="no question in common"):
        score_answers({}, {})


MARKS = [";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",", "?", "!"]
NUMBERS = ["none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
SPELLED = {
    "dont": "don't",
    "whats": "what's",
    "oclock": "o'clock",
    "yall": "y'all",
    "shouldn'tve": "shouldn't've",
    "shouldnt've": "shouldn't've",
}
PLAIN = ["A", "the", "An", "Red", "red", "1,000", "3.5", "u.s.", "café", "it’s", ":"]
WORDS = [*NUMBERS, *SPELLED, *SPELLED.values(), *PLAIN]


def straight_normalize(text):
    """Normalize letter by letter, from the steps that visualqa.org/evaluation.html names and the order of the code."""
    digits = "0123456789"
    number = any(
        text[i] == "," and text[i - 1] in digits and text[i + 1] in digits for i in range(1, max(len(text) - 1, 1))
    )
    letters = []
    for letter in text:
        if letter not in MARKS:
            letters.append(letter)
        elif not number and letter + " " not in text and " " + letter not in text:
            letters.append(" ")
    kept = [
        letter
        for place, letter in enumerate(letters)
        if letter != "." or (place + 1 < len(letters) and letters[place + 1] in digits)
    ]
    words = []
    for word in "".join(kept).lower().split():
        if word in NUMBERS:
            word = str(max(NUMBERS.index(word) - 1, 0))
        if word not in ("a", "an", "the"):
            words.append(SPELLED.get(word, word))
    return " ".join(words)


def straight_score(answer, references):
    texts = [text.replace("\n", " ").replace("\t", " ").strip() for text in [answer, *references]]
    if len(set(texts[1:])) > 1:
        texts = [straight_normalize(text) for text in texts]
    total = 0.0
    for left_out in range(1, len(texts)):
        others = texts[1:left_out] + texts[left_out + 1 :]
        total += min(1.0, others.count(texts[0]) / 3)
    return total / len(references)


def messy_text(generator):
    separators = [" ", " ", "  ", "\n", "\t", ". ", *MARKS, *(mark + " " for mark in MARKS)]
    pieces = [generator.choice(WORDS) + generator.choice(separators) for _ in range(generator.randint(1, 3))]
    return "".join(pieces)


def vary(text, generator):
    """Write an answer in another way, which may be equal once normalized."""
    others = (text.upper(), f"the {text}", f" {text}.", text.replace("'", "", 1), text.replace(",", ""), f"{text} ?")
    return generator.choice([text, *others])


def test_scores_equal_a_straight_version_on_messy_answers():
    generator = random.Random(0)
    seen = set()
    for _ in range(3000):
        pool = [messy_text(generator) for _ in range(generator.choice([1, 2, 3, 4]))]
        references = [vary(generator.choice(pool), generator) for _ in range(10)]
        if generator.random() < 0.2:
            references = pool[:1] * 10
        answer = vary(generator.choice(pool), generator)
        seen.add(score := answer_score(answer, references))
        assert score == straight_score(answer, references), (answer, references)
    assert {0, 1} < seen
    assert len(seen) >= 5  # each step of .3 was met
