"""What a benchmark is to the program that runs it: examples, a way to predict some of them, and a score of all."""

from collections.abc import Sequence
from typing import Any, Protocol

from .report import Report


class Benchmark(Protocol):
    """A data set, what it asks of a model, and how that is scored.

    Args:
        task: its name, as in `vlkd evaluate --task`.
        ids: one for each example, all different; integers or texts.
    """

    task: str

    @property
    def ids(self) -> Sequence[int | str]: ...

    def order(self) -> Sequence[int]:
        """Give all positions, ordered so that neighbors cost little together: one picture, like lengths."""

    def predict(self, model: Any, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Predict some examples: a row for each, of what JSON can hold, whatever the others are.

        Args:
            model: speaks [`VisionLanguageModel`], or what else the benchmark names.
        """

    def report(self, rows: Sequence[dict[str, Any]], seed: int) -> Report:
        """Score all rows, which are in the order of `ids`.

        Args:
            seed: of the bootstrap.
        """
