"""Scores whose values are known on paper."""

import pytest
import torch

from modeling_vlkd.evaluation.protocol import Answer
from modeling_vlkd.miniature.clip_teacher import CLASSES
from modeling_vlkd.miniature.demo import mean_and_spread
from modeling_vlkd.miniature.scoring import ask_blind, caption_accuracy, retrieval, score_answers, score_cider
from modeling_vlkd.miniature.world import Scene, load_split


@pytest.fixture(scope="module")
def split():
    return load_split("test")


def test_right_answers_score_one_everywhere(split):
    assert set(score_answers(split, split.answers).values()) == {1.0}


def test_balanced_yes_no_is_half_for_whoever_always_says_the_same(split):
    for word in ("yes", "no"):
        scores = score_answers(split, [word] * len(split.questions))
        assert scores["yes_no_colour"] == scores["yes_no_shape"] == 0.5
        assert scores["colour"] == scores["shape"] == 0.0


def test_trained_and_held_out_templates_make_up_the_whole(split):
    answers = ["yes"] * len(split.questions)
    scores = score_answers(split, answers)
    low, high = sorted([scores["trained_templates"], scores["heldout_templates"]])
    assert low < scores["overall"] < high


def test_captions_count_word_for_word():
    scenes = [Scene("red", "circle", "small"), Scene("red", "circle")]
    assert caption_accuracy(scenes, ["a red circle", "a red circle"]) == 1.0
    assert caption_accuracy(scenes, ["a red circle circle", "a red triangle"]) == 0.0
    assert caption_accuracy(scenes, ["A small red circle", "A small red circle"]) == 0.5


def test_cider_counts_agreement_and_not_only_whole_captions():
    scenes = [Scene("red", "circle"), Scene("blue", "triangle"), Scene("gray", "rectangle")]
    right = score_cider(scenes, ["a red circle", "a blue triangle", "a gray rectangle"])
    near = score_cider(scenes, ["a red triangle", "a blue circle", "a gray circle"])
    assert right > near > score_cider(scenes, ["a teal", "a teal", "a teal"]) == 0.0
    # The prompt's words and the period are counted in none of them.
    assert score_cider(scenes, ["A picture of a red circle.", "a blue triangle", "a gray rectangle"]) < right


def test_retrieval_of_orthogonal_classes():
    scenes = [*CLASSES, CLASSES[0]]
    texts = torch.eye(24)
    images = torch.cat([torch.eye(24), texts[1:2]])  # the last picture looks like another class
    assert retrieval(scenes, images, texts) == {"retrieval_i2t": pytest.approx(24 / 25), "retrieval_t2i": 1.0}


def test_blind_questions_are_asked_once_and_answered_in_order():
    asked = []

    class Shouter:
        def answer(self, images, questions):
            assert images is None
            asked.extend(questions)
            return [Answer(question.upper(), 1.0) for question in questions]

    assert ask_blind(Shouter(), ["b", "a", "b"]) == ["B", "A", "B"]
    assert asked == ["a", "b"]


def test_spread_is_the_sample_standard_deviation():
    assert mean_and_spread([{"overall": 0.5}]) == {"overall": 0.5}
    assert mean_and_spread([{"overall": 0.5}, {"overall": 0.7}]) == {
        "overall": pytest.approx(0.6),
        "overall_std": pytest.approx(0.02**0.5),
    }
