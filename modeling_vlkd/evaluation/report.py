"""What an evaluation found: figures as JSON and as a table, with all that it takes to get them again."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from modeling_vlkd import __version__

from .json_files import write_json_file


RESAMPLES, LEVEL = 1000, 0.95  # of the bootstrap
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

    def table(self) -> Table:
        """Draw all figures, a row each; the groups follow the whole."""
        figures = self.overall if isinstance(self.overall, dict) else {"accuracy": self.overall}
        digits = 3 if isinstance(self.overall, dict) else 2  # shares, and percent as the official evaluator gives it

        def show(value: float) -> str:
            return f"{value:.{digits}f}"

        table = Table(f"{self.task}, {self.examples:,} examples")
        for name in figures:
            table.add_column(name, justify="right")
        table.add_row("overall", *(show(value) for value in figures.values()), end_section=True)
        if self.intervals:
            shown = (self.intervals.get(name) for name in figures)
            cells = ["" if each is None else f"{show(each[0])} to {show(each[1])}" for each in shown]
            table.add_row("95 % of bootstrap samples", *cells, end_section=True)
        for group in self.groups.values():
            for number, (name, value) in enumerate(group.items(), start=1):
                cells = [show(each) for each in (value.values() if isinstance(value, Mapping) else [value])]
                table.add_row(name, *cells, end_section=number == len(group))
        return table


def bootstrap_interval(scores: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Find where the mean of scores lies in 95 % of the samples that are drawn from them with replacement.

    Args:
        scores: one for each example.

    Returns:
        The 2.5th and the 97.5th percentile of 1,000 means.
    """
    values, generator = np.asarray(scores, dtype=float), np.random.default_rng(seed)
    means = [values[generator.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
