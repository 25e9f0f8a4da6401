"""What an evaluation found: figures as JSON and as a table, with all that it takes to get them again."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from modeling_vlkd import __version__

from .json_files import write_json_file


RESAMPLES, LEVEL = 1000, 0.95  # of the bootstrap
LARGE = 100
LIBRARIES = ("transformers", "torch", "datasets")


@dataclass(frozen=True)
class ScoredExample:
    """One prediction, as a person would look at it.

    Args:
        score: 0 to 1; None where nothing is known to compare with.
        said: what the model said.
        truth: what is right, one or several texts.
        asked: the question, or the text that was read.
        image: the file of its picture.
    """

    id: int | str
    score: float | None
    said: str
    truth: Sequence[str]
    asked: str = ""
    image: str | None = None


@dataclass
class Report:
    """The figures of one evaluation.

    Args:
        task: what was evaluated.
        examples: how many questions or pictures.
        overall: one figure, or several by their official names.
        groups: figures of parts, by the name of the partition: `{"by_answer_type": {"yes/no": 70.1, ...}}`.
        intervals: of the figures that are means over examples: where they lie in 95 % of bootstrap samples.
        facts: what else there is to say, such as which tokenizer was used.
        scored: each example, if they are known.
    """

    task: str
    examples: int
    overall: float | dict[str, float]
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    scored: list[ScoredExample] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Give all figures, with the versions of the software."""
        versions = {"modeling_vlkd": __version__, "python": platform.python_version()}
        return {
            "task": self.task,
            "examples": self.examples,
            "overall": self.overall,
            **self.groups,
            "confidence_95": {name: list(interval) for name, interval in self.intervals.items()},
            **self.facts,
            "versions": versions | {name: version(name) for name in LIBRARIES},
        }

    def save(self, path: str | Path):
        """Write the figures to a JSON file, completely or, if that fails, not at all.

        Raises:
            EvaluationError: it cannot be written there; what stood there before stays.
        """
        write_json_file(Path(path), self.as_dict(), indent=2)

    @property
    def figures(self) -> dict[str, float]:
        """Name the figures of the whole."""
        return self.overall if isinstance(self.overall, dict) else {"accuracy": self.overall}

    def show(self, value: float) -> str:
        """Write a figure: shares with 3 digits, and percent with 2, as the official evaluator of VQAv2 gives it."""
        if not isinstance(self.overall, dict):
            return f"{value:.2f}"
        return f"{value:.3f}" if abs(value) < LARGE else f"{value:,.1f}"  # a rank, a perplexity

    def tables(self, title: str | None = None) -> list[Table]:
        """Draw the figures of the whole, a row each, and those of each partition, a row for each of its parts."""
        whole = Table(f"{title or self.task}, {self.examples:,} examples")
        whole.add_column("overall", justify="right")
        if self.intervals:
            whole.add_column("95 % of bootstrap samples", justify="right")
        for name, value in self.figures.items():
            low_high = self.intervals.get(name)
            whole.add_row(
                name, self.show(value), *([] if low_high is None else [" to ".join(map(self.show, low_high))])
            )
        return [whole, *(self.table_of(name) for name in self.groups)]

    def table_of(self, partition: str) -> Table:
        """Draw the figures of the parts of a partition."""
        parts = {
            name: value if isinstance(value, Mapping) else {"accuracy": value}
            for name, value in self.groups[partition].items()
        }
        table = Table(partition.replace("_", " "))
        for name in dict.fromkeys(name for figures in parts.values() for name in figures):
            table.add_column(name, justify="right")
        for name, figures in parts.items():
            table.add_row(name, *map(self.show, figures.values()))
        return table


def compare(reports: Mapping[str, Report]) -> Table:
    """Draw the figures of several models on one data set: models are columns, and of a single figure rows."""
    first = next(iter(reports.values()))
    table = Table(f"{first.task}, {first.examples:,} examples")
    if len(first.figures) == 1:
        [name] = first.figures
        for head in (name, "95 % of bootstrap samples"):
            table.add_column(head, justify="right")
        for model, report in reports.items():
            interval = " to ".join(map(report.show, report.intervals.get(name, ())))
            table.add_row(model, report.show(report.figures[name]), interval)
        return table
    for model in reports:
        table.add_column(model, justify="right", overflow="fold")
    for name in first.figures:
        table.add_row(name, *(report.show(report.figures[name]) for report in reports.values()))
    return table


def bootstrap_interval(scores: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Find where the mean of scores lies in 95 % of the samples that are drawn from them with replacement.

    Args:
        scores: one for each example.

    Returns:
        The 2.5th and the 97.5th percentile of 1,000 means.
    """
    values = np.asarray(scores, dtype=float)
    return bootstrap(lambda drawn: values[drawn].mean(), len(values), seed)


def bootstrap_ratio(shares: np.ndarray, wholes: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Find the same of a ratio of sums over examples.

    Args:
        shares, wholes: `(examples,)`; the ratio is the sum of the ones over the sum of the others.
    """
    return bootstrap(lambda drawn: shares[drawn].sum() / max(wholes[drawn].sum(), 1), len(shares), seed)


def bootstrap(figure: Callable[[np.ndarray], float], examples: int, seed: int) -> tuple[float, float]:
    """Compute a figure of 1,000 samples, each given by the positions of its examples, and take both percentiles."""
    generator = np.random.default_rng(seed)
    figures = [figure(generator.integers(examples, size=examples)) for _ in range(RESAMPLES)]
    low, high = np.quantile(figures, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
