"""The tasks of GLUE (arXiv:1804.07461) without WNLI, as data, and their official metrics."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .errors import EvaluationError


PACKAGES = ("sklearn", "scipy")  # imported where a figure is computed: not everybody has them


def correlation(name: str, predictions: np.ndarray, truths: np.ndarray) -> float:
    """Compute `pearsonr` or `spearmanr`, and call it 0 where it is not defined: if either of the two never varies."""
    from scipy import stats

    if np.ptp(predictions) == 0 or np.ptp(truths) == 0:
        return 0.0
    return float(getattr(stats, name)(predictions, truths)[0])


def of_classes(name: str, predictions: np.ndarray, truths: np.ndarray, **settings: Any) -> float:
    """Compute a metric of scikit-learn, by the name of its function."""
    from sklearn import metrics

    return float(getattr(metrics, name)(truths, predictions, **settings))


# Each is a function of predictions and truths, by the name that `datasets` gives it. F1 is that of class 1.
METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": partial(of_classes, "accuracy_score"),
    "f1": partial(of_classes, "f1_score", zero_division=0.0),
    "matthews_correlation": partial(of_classes, "matthews_corrcoef"),
    "pearson": partial(correlation, "pearsonr"),
    "spearmanr": partial(correlation, "spearmanr"),
}


@dataclass(frozen=True)
class GlueTask:
    """What a task is made of.

    Args:
        name: as `datasets` calls it.
        title: the official name, for people.
        columns: one text, or two, as `datasets` calls them.
        labels: names of the classes, by number; None where a number is predicted.
        metrics: the official ones; the first is the one that BART's paper gives for the task (arXiv:1910.13461).
        folder: of the official download.
        submission: what the server calls the file of predictions, without its `.tsv`.
        texts_in_tsv, label_in_tsv: columns of the official `.tsv` files; by default as `columns`, and `label`.
        submits_names: whether the server takes the names of the classes, and the official files hold them.
        dev: the official file with the labels for development, without its `.tsv`.
        test: the same without labels.
        bounds: least and greatest truth where a number is predicted.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...]
    folder: str
    submission: str
    texts_in_tsv: tuple[str, ...] = ()
    label_in_tsv: str = "label"
    submits_names: bool = False
    dev: str = "dev"
    test: str = "test"
    bounds: tuple[float, float] = (0.0, 0.0)

    @property
    def metric(self) -> str:
        return self.metrics[0]

    @property
    def part(self) -> str:
        """Give "matched" or "mismatched" of MNLI, as its splits end, and "" of other tasks."""
        return self.dev.partition("_")[2]

    @property
    def hub_config(self) -> str:
        """Name the configuration on the Hub (`nyu-mll/glue`); both parts of MNLI are in one."""
        return self.name.removesuffix("_mismatched")

    @property
    def num_labels(self) -> int:
        return len(self.labels) if self.labels else 1

    def order_of(self, names: Sequence[str]) -> list[int]:
        """Find which output of a model is that of each label, by the names that the model gives to its outputs.

        Upper case, spaces, underscores and hyphens do not count. `LABEL_0`, `LABEL_1` and so on, as transformers calls
        what nobody has named, are taken in their order, and so is the one output of a task without labels.

        Raises:
            EvaluationError: there are more or fewer outputs than labels, or they have other names.
        """
        found, wanted = [plain(name) for name in names], [plain(name) for name in self.labels or ()]
        unnamed = [f"label{number}" for number in range(self.num_labels)]
        if self.labels and sorted(found) == sorted(wanted):
            return [found.index(name) for name in wanted]
        if found == unnamed or (self.labels is None and len(found) == 1):
            return list(range(self.num_labels))
        remedy = "finetune it on this task"
        if self.labels and len(names) == self.num_labels:
            remedy += ", or name them as they are meant in `id2label` of its configuration"
        raise EvaluationError(
            f"{self.title} wants outputs for {', '.join(self.labels or ('one number',))}, and those of the "
            f"model are {', '.join(names)}; {remedy}."
        )

    def decide(self, scores: np.ndarray) -> np.ndarray:
        """Turn the outputs of a model, `(examples, num_labels)`, into classes or numbers: `(examples,)`.

        Raises:
            EvaluationError: there are more or fewer outputs an example than labels.
        """
        if scores.ndim != 2 or scores.shape[1] != self.num_labels:
            wanted = f"{self.num_labels} outputs an example ({', '.join(self.labels or ('the number',))})"
            raise EvaluationError(
                f"{self.title} needs {wanted}, got outputs of shape {scores.shape}; finetune the model on this task."
            )
        return scores.argmax(axis=1) if self.labels else scores[:, 0]


_PAIR, _NLI = ("sentence1", "sentence2"), ("entailment", "not_entailment")
_MNLI = ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), ("accuracy",), "MNLI"
TASKS = {
    task.name: task
    for task in (
        GlueTask(
            *("cola", "CoLA", ("sentence",), ("unacceptable", "acceptable"), ("matthews_correlation",)),
            *("CoLA", "CoLA"),
        ),
        GlueTask("sst2", "SST-2", ("sentence",), ("negative", "positive"), ("accuracy",), "SST-2", "SST-2"),
        GlueTask(
            *("mrpc", "MRPC", _PAIR, ("not_equivalent", "equivalent"), ("accuracy", "f1"), "MRPC", "MRPC"),
            texts_in_tsv=("#1 String", "#2 String"),
            label_in_tsv="Quality",
        ),
        GlueTask(
            *("stsb", "STS-B", _PAIR, None, ("pearson", "spearmanr"), "STS-B", "STS-B"),
            label_in_tsv="score",
            bounds=(0.0, 5.0),
        ),
        GlueTask(
            *("qqp", "QQP", ("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1")),
            *("QQP", "QQP"),
            label_in_tsv="is_duplicate",
        ),
        GlueTask(
            *("mnli", "MNLI, matched", *_MNLI, "MNLI-m", _PAIR, "gold_label", True),
            dev="dev_matched",
            test="test_matched",
        ),
        GlueTask(
            *("mnli_mismatched", "MNLI, mismatched", *_MNLI, "MNLI-mm", _PAIR, "gold_label", True),
            dev="dev_mismatched",
            test="test_mismatched",
        ),
        GlueTask("qnli", "QNLI", ("question", "sentence"), _NLI, ("accuracy",), "QNLI", "QNLI", submits_names=True),
        GlueTask("rte", "RTE", _PAIR, _NLI, ("accuracy",), "RTE", "RTE", submits_names=True),
    )
}


def plain(name: str) -> str:
    """Write a name as names are compared, "Not-Entailment" as "notentailment"."""
    return re.sub(r"[\s_-]", "", name.lower())


def find_task(name: str) -> GlueTask:
    """Find a task by its name on the Hub or its official one, in upper or lower case.

    Raises:
        EvaluationError: there is none of that name.
    """
    for task in TASKS.values():
        if plain(name) in {plain(task.name), plain(task.submission)}:
            return task
    raise EvaluationError(f"GLUE has no task {name!r}; choose one of {', '.join(TASKS)}.")


def score_predictions(
    task: GlueTask, predictions: Sequence | np.ndarray, truths: Sequence | np.ndarray
) -> dict[str, float]:
    """Compute the official metrics of a task, as shares or correlations.

    Args:
        predictions, truths: `(examples,)`, numbers of classes, or numbers.
    """
    found, known = np.asarray(predictions), np.asarray(truths)
    return {name: METRICS[name](found, known) for name in task.metrics}
