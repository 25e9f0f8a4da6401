"""GLUE's tasks and metrics, against the formulas written out."""

import math

import numpy as np
import pytest

from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.glue_tasks import TASKS, find_task, score_predictions


def counts(found: np.ndarray, known: np.ndarray) -> tuple[int, int, int, int]:
    """Count true and false positives, false and true negatives."""
    return tuple(int(np.sum((found == a) & (known == b))) for a, b in ((1, 1), (1, 0), (0, 1), (0, 0)))


def ranks(values: np.ndarray) -> np.ndarray:
    """Rank values from 1, equal ones by the mean of their places."""
    return np.array([np.mean([place for place, each in enumerate(sorted(values), 1) if each == v]) for v in values])


def covariance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean((a - a.mean()) * (b - b.mean())))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return covariance(a, b) / math.sqrt(covariance(a, a) * covariance(b, b))


@pytest.fixture
def classes() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    known = generator.integers(0, 2, 200)
    return np.where(generator.random(200) < 0.7, known, 1 - known), known


def test_f1_is_that_of_the_equivalent_pairs(classes):
    right, wrong, missed, other = counts(*classes)
    scores = score_predictions(TASKS["mrpc"], *classes)
    assert scores == {
        "accuracy": pytest.approx((right + other) / 200),
        "f1": pytest.approx(2 * right / (2 * right + wrong + missed)),
    }
    assert scores["f1"] != pytest.approx(2 * other / (2 * other + wrong + missed))  # of the other class
    assert score_predictions(TASKS["qqp"], *classes) == scores


def test_cola_has_the_correlation_of_matthews(classes):
    right, wrong, missed, other = counts(*classes)
    formula = (right * other - wrong * missed) / math.sqrt(
        (right + wrong) * (right + missed) * (other + wrong) * (other + missed)
    )
    assert score_predictions(TASKS["cola"], *classes) == {"matthews_correlation": pytest.approx(formula)}


def test_stsb_has_both_correlations():
    known = np.array([0.0, 1.0, 1.0, 3.5, 5.0, 2.0])
    found = np.array([0.2, 0.9, 1.4, 9.0, 3.0, 3.0])
    assert score_predictions(TASKS["stsb"], found, known) == {
        "pearson": pytest.approx(correlation(found, known)),
        "spearmanr": pytest.approx(correlation(ranks(found), ranks(known))),
    }


def test_a_model_that_always_says_the_same_has_no_correlation(recwarn):
    assert score_predictions(TASKS["stsb"], np.ones(4), np.arange(4.0)) == {"pearson": 0.0, "spearmanr": 0.0}
    assert score_predictions(TASKS["cola"], np.ones(4), np.array([0, 1, 1, 1])) == {"matthews_correlation": 0.0}
    assert not recwarn.list


def test_classes_are_decided_by_the_greatest_output_and_numbers_are_taken():
    outputs = np.array([[0.1, 0.3, -1.0], [2.0, 0.3, 1.9]])
    assert TASKS["mnli"].decide(outputs).tolist() == [1, 0]
    assert TASKS["stsb"].decide(outputs[:, :1]).tolist() == [0.1, 2.0]
    with pytest.raises(EvaluationError, match=r"SST-2 needs 2 outputs .*negative, positive.* got .*\(2, 3\)"):
        TASKS["sst2"].decide(outputs)


def test_all_tasks_but_wnli_are_there_with_the_numbers_of_labels_of_the_benchmark():
    wanted = {
        "cola": 2,
        "sst2": 2,
        "mrpc": 2,
        "stsb": 1,
        "qqp": 2,
        "mnli": 3,
        "mnli_mismatched": 3,
        "qnli": 2,
        "rte": 2,
    }
    assert {name: task.num_labels for name, task in TASKS.items()} == wanted
    assert TASKS["mnli"].labels == ("entailment", "neutral", "contradiction")  # in the order of `datasets`


@pytest.mark.parametrize(
    ("name", "found"),
    [("SST-2", "sst2"), ("sts-b", "stsb"), ("MNLI-mm", "mnli_mismatched"), ("MNLI-m", "mnli"), ("cola", "cola")],
)
def test_tasks_are_found_by_both_their_names(name: str, found: str):
    assert find_task(name) is TASKS[found]


def test_an_unknown_task_is_named_with_those_that_exist():
    with pytest.raises(EvaluationError, match="no task 'wnli'; choose one of cola, sst2"):
        find_task("wnli")


@pytest.mark.parametrize(
    ("task", "names", "order"),
    [
        ("mnli", ["CONTRADICTION", "neutral", "Entailment"], [2, 1, 0]),
        ("mnli", ["neutral", "contradiction", "entailment"], [2, 0, 1]),
        ("rte", ["Not Entailment", "entailment"], [1, 0]),
        ("mrpc", ["not-equivalent", "equivalent"], [0, 1]),
        ("mnli_mismatched", ["LABEL_0", "LABEL_1", "LABEL_2"], [0, 1, 2]),
        ("stsb", ["LABEL_0"], [0]),
        ("stsb", ["similarity"], [0]),
    ],
)
def test_outputs_are_known_by_their_names(task: str, names: list[str], order: list[int]):
    assert TASKS[task].order_of(names) == order


@pytest.mark.parametrize(
    ("task", "names", "message"),
    [
        (
            "sst2",
            ["good", "bad"],
            "outputs for negative, positive, and those of the model are good, bad; .*`id2label`",
        ),
        ("sst2", ["LABEL_1", "LABEL_0"], "those of the model are LABEL_1, LABEL_0"),
        ("rte", ["entailment", "entailment"], "those of the model are entailment, entailment"),
        ("rte", ["entailment", "neutral", "contradiction"], "contradiction; finetune it on this task.$"),
        ("mnli", ["LABEL_0", "LABEL_1"], "those of the model are LABEL_0, LABEL_1; finetune it on this task.$"),
        ("stsb", ["LABEL_0", "LABEL_1"], "outputs for one number, and those of the model are LABEL_0, LABEL_1"),
    ],
)
def test_outputs_of_another_task_are_told(task: str, names: list[str], message: str):
    with pytest.raises(EvaluationError, match=message):
        TASKS[task].order_of(names)
