"""GLUE without WNLI: how well a finetuned classifier does one of its tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import EvaluationError
from .extra_packages import require_packages
from .glue_files import GlueExample, read_glue, write_submission
from .glue_tasks import PACKAGES, GlueTask, find_task, score_predictions
from .report import Report, ScoredExample, bootstrap_interval
from .text_models import TextClassifier
from .text_tables import DEV


class GlueBenchmark:
    """A task of GLUE as a benchmark; see `benchmark.py`.

    A row holds the outputs of the model, `{"scores": [...]}`, in the order of the task's labels; STS-B has one.
    `{"truncated": true}` is said of an example that was cut.

    Args:
        glue_task: or its name.
        examples: with labels; without any, `report` only gives what the model says, and `submit` writes it.

    Raises:
        EvaluationError: there are no examples, or only some of them have labels.
    """

    task = "glue"

    def __init__(self, glue_task: GlueTask | str, examples: Sequence[GlueExample]):
        self.glue_task = find_task(glue_task) if isinstance(glue_task, str) else glue_task
        self.examples = examples
        require_packages("Scoring GLUE", *PACKAGES)
        if not examples:
            raise EvaluationError(f"Expected examples of {self.glue_task.title}, got none.")
        labeled = [example.index for example in examples if example.label is not None]
        if labeled and len(labeled) < len(examples):
            raise EvaluationError(
                f"{len(examples) - len(labeled)} of {len(examples)} examples of {self.glue_task.title} have no label; "
                "give all of them one, or none."
            )
        self.ids = [example.index for example in examples]

    @classmethod
    def read(cls, glue_task: GlueTask | str, source: str | Path, split: str = DEV) -> "GlueBenchmark":
        """Read the examples as [`read_glue`] does."""
        glue_task = find_task(glue_task) if isinstance(glue_task, str) else glue_task
        return cls(glue_task, read_glue(glue_task, source, split))

    @property
    def is_labeled(self) -> bool:
        return self.examples[0].label is not None

    def order(self) -> Sequence[int]:
        return sorted(range(len(self.examples)), key=lambda place: sum(map(len, self.examples[place].texts)))

    def predict(self, model: TextClassifier, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Classify examples by a model that speaks [`TextClassifier`].

        Raises:
            EvaluationError: the outputs of the model are not those of the task's labels.
        """
        order = self.glue_task.order_of(model.labels)
        columns = [list(column) for column in zip(*(self.examples[place].texts for place in positions))]
        cut = model.overlong(*columns)
        return [
            {"scores": scores} | ({"truncated": True} if truncated else {})
            for scores, truncated in zip(model.classify(*columns)[:, order].tolist(), cut, strict=True)
        ]

    def decide(self, rows: Sequence[dict[str, Any]]) -> np.ndarray:
        """Turn the rows of all examples into classes or numbers: `(examples,)`."""
        return self.glue_task.decide(np.array([row["scores"] for row in rows], dtype=np.float64))

    def report(self, rows: Sequence[dict[str, Any]], seed: int = 0) -> Report:
        """Score all rows by the official metrics, as shares or correlations; nothing where only the server knows."""
        if not self.is_labeled:
            return Report(self.task, len(rows), {}, facts={"glue_task": self.glue_task.name})
        task, predictions = self.glue_task, self.decide(rows)
        truths = np.array([example.label for example in self.examples])
        overall = score_predictions(task, predictions, truths)
        scored = [self.score_one(*each) for each in zip(self.examples, truths.tolist(), predictions.tolist())]
        intervals = {}
        if "accuracy" in overall:
            intervals["accuracy"] = bootstrap_interval((predictions == truths).tolist(), seed)
        return Report(
            "glue",
            len(rows),
            overall,
            intervals=intervals,
            facts={"glue_task": task.name, "truncated": sum("truncated" in row for row in rows)},
            scored=scored,
        )

    def score_one(self, example: GlueExample, truth: int | float, prediction: int | float) -> ScoredExample:
        """Give 1 for the right class, or, for a number, 1 less the share of the range by which it is off."""
        names = self.glue_task.labels
        if names:
            score, said, right = float(prediction == truth), names[int(prediction)], names[int(truth)]
        else:
            low, high = self.glue_task.bounds
            score = max(0.0, 1 - abs(prediction - truth) / (high - low))
            said, right = f"{prediction:.2f}", f"{truth:g}"
        return ScoredExample(example.index, score, said, [right], " | ".join(example.texts))

    def submit(self, rows: Sequence[dict[str, Any]], folder: str | Path) -> Path:
        """Write all rows as the GLUE server takes them; see [`write_submission`]."""
        return write_submission(Path(folder), self.glue_task, self.ids, self.decide(rows).tolist())
