"""A grid keeps the best model alone, and goes on where it was stopped."""

import json
from pathlib import Path

import pytest

from modeling_vlkd.trainers.grid import GLUE_GRID, GridPoint, run_grid


POINTS = [GridPoint(16, rate, 1e-4) for rate in (1e-4, 5e-4, 1e-3)]
IDENTITY = {"task": "rte", "seed": 0}


class Runs:
    """Trains nothing: writes weights, and returns the accuracy that is given for the learning rate."""

    def __init__(self, **accuracies: float | None):
        self.accuracies, self.made, self.stop_at = accuracies, [], None

    def __call__(self, point: GridPoint, folder: Path) -> dict:
        self.made.append(point.learning_rate)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights").write_text(point.name)
        if point.learning_rate == self.stop_at:
            raise KeyboardInterrupt
        value = self.accuracies[f"{point.learning_rate:g}".replace("-", "_").replace(".", "_")]
        return {"accuracy": value} if value is not None else {"fault": "loss was nan"}


def runs(*accuracies: float | None) -> Runs:
    return Runs(**dict(zip(("0_0001", "0_0005", "0_001"), accuracies)))


def kept(folder: Path) -> list[str]:
    return [path.read_text() for path in folder.rglob("weights")]


def test_the_papers_grid_has_18_points():
    assert len({point.name for point in GLUE_GRID}) == 18
    assert {(point.batch_size, point.learning_rate, point.weight_decay) for point in GLUE_GRID} == {
        (batch, rate, decay) for batch in (16, 32, 64) for rate in (1e-4, 5e-4, 1e-3) for decay in (1e-4, 1e-3)
    }


@pytest.mark.parametrize(("accuracies", "best"), [((0.5, 0.8, 0.6), 1), ((0.9, 0.2, 0.9), 0), ((None, None, 0.1), 2)])
def test_the_best_point_is_kept_the_first_of_equal_ones(accuracies, best: int, tmp_path: Path):
    result = run_grid(tmp_path, POINTS, runs(*accuracies), "accuracy", IDENTITY)
    assert result.best == POINTS[best]
    assert kept(tmp_path) == [POINTS[best].name] == [(result.folder / "weights").read_text()]
    assert [each.get("accuracy") for each in result.results.values()] == list(accuracies)
    written = json.loads((tmp_path / POINTS[1].name / "result.json").read_text())
    assert written["learning_rate"] == 5e-4


def test_a_stopped_grid_goes_on(tmp_path: Path):
    first = runs(0.8, 0.5, 0.9)
    first.stop_at = 1e-3
    with pytest.raises(KeyboardInterrupt):
        run_grid(tmp_path, POINTS, first, "accuracy", IDENTITY)
    assert sorted(kept(tmp_path)) == sorted([POINTS[0].name, POINTS[2].name])  # the best, and what was begun
    again = runs(None, None, 0.9)
    result = run_grid(tmp_path, POINTS, again, "accuracy", IDENTITY)
    assert again.made == [1e-3]
    assert result.best == POINTS[2]
    assert kept(tmp_path) == [POINTS[2].name]
    last = runs()
    assert run_grid(tmp_path, POINTS, last, "accuracy", IDENTITY).best == POINTS[2]
    assert not last.made


def test_another_grid_is_refused(tmp_path: Path):
    run_grid(tmp_path, POINTS, runs(0.1, 0.2, 0.3), "accuracy", IDENTITY)
    with pytest.raises(ValueError, match="results of another grid: seed was 0 and is 1; name another folder"):
        run_grid(tmp_path, POINTS, runs(0.1, 0.2, 0.3), "accuracy", IDENTITY | {"seed": 1})


def test_a_grid_that_diverged_everywhere_says_so(tmp_path: Path):
    with pytest.raises(ValueError, match="all runs diverged: lower the learning rates"):
        run_grid(tmp_path, POINTS, runs(None, None, None), "accuracy", IDENTITY)
    assert not kept(tmp_path)


def test_a_broken_file_is_named_and_stays(tmp_path: Path):
    (tmp_path / "grid.json").write_text('{"task": "r')
    with pytest.raises(ValueError, match="cannot hold results"):
        run_grid(tmp_path, POINTS, runs(0.1, 0.2, 0.3), "accuracy", IDENTITY)
    assert (tmp_path / "grid.json").read_text() == '{"task": "r'
