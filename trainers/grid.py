"""Finetune at each point of a grid, and keep the best: a plain loop that may be killed and goes on."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from modeling_vlkd.evaluation.json_files import write_json_file
from modeling_vlkd.evaluation.running import claim


IDENTITY, RESULT, RUN = "grid.json", "result.json", "run"


@dataclass(frozen=True)
class GridPoint:
    """Settings of one run; the batch is that of a step, over all devices."""

    batch_size: int
    learning_rate: float
    weight_decay: float

    @property
    def name(self) -> str:
        return f"batch-{self.batch_size}_lr-{self.learning_rate:g}_decay-{self.weight_decay:g}"


# Those of arXiv:2203.06386 for GLUE, 18 points.
GLUE_GRID = [GridPoint(*point) for point in product((16, 32, 64), (1e-4, 5e-4, 1e-3), (1e-4, 1e-3))]


@dataclass(frozen=True)
class GridResult:
    """The best point, the folder of its run, and what was measured at each point, by its name."""

    best: GridPoint
    folder: Path
    results: dict[str, dict[str, Any]]


def run_grid(
    folder: Path,
    points: Sequence[GridPoint],
    run_point: Callable[[GridPoint, Path], Mapping[str, Any]],
    metric: str,
    identity: Mapping[str, Any],
) -> GridResult:
    """Run all points, except those whose results are in the folder already.

    `FOLDER/NAME/result.json` has what was measured at a point, and `FOLDER/NAME/run` its model, until another point is
    better. Of equal points the first one is kept.

    Args:
        run_point: trains at a point, in the folder given, going on with what is there; saves the model there, and
            returns what it measured. Without a value of `metric`, a point that diverged, say, is not the best one.
        metric: the greater the better.
        identity: what the results depend on besides the point: model, data and settings, as JSON can hold them.

    Raises:
        ValueError: the folder holds a grid with another identity or cannot hold one, or no point has a value.
    """
    claim(folder, identity, IDENTITY, "results", "grid")
    results: dict[str, dict[str, Any]] = {}
    for number, point in enumerate(points, 1):
        place = folder / point.name
        if not (place / RESULT).is_file():
            place.mkdir(parents=True, exist_ok=True)
            print(f"Point {number} of {len(points)}: {point.name}", flush=True)
            measured = run_point(point, place / RUN)
            write_json_file(place / RESULT, {**vars(point), **measured}, indent=2)
        results[point.name] = json.loads((place / RESULT).read_text(encoding="utf-8"))
        best = best_of(results, metric)
        for name in results:
            if name != best:
                shutil.rmtree(folder / name / RUN, ignore_errors=True)
    if best is None:
        raise ValueError(
            f"No point of the grid in {folder} has a {metric}; all runs diverged: lower the learning rates."
        )
    return GridResult(next(point for point in points if point.name == best), folder / best / RUN, results)


def best_of(results: Mapping[str, Mapping[str, Any]], metric: str) -> str | None:
    """Name the point with the greatest value, the first of equal ones; None if none has a value."""
    valued = [name for name, result in results.items() if result.get(metric) is not None]
    return max(valued, key=lambda name: results[name][metric], default=None)
