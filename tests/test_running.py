"""Benchmarks are run in batches, resumed after a kill, and divided among processes."""

import json
from pathlib import Path

import pytest
from squares import Squares

from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.running import run_benchmark


def test_rows_come_in_the_order_of_the_ids_and_batches_in_that_of_the_benchmark(tmp_path: Path):
    benchmark = Squares(7)
    rows = run_benchmark(benchmark, None, tmp_path / "a" / "run", batch_size=3)
    assert [row["id"] for row in rows] == benchmark.ids
    assert [row["square"] for row in rows] == [0, 1, 4, 9, 16, 25, 36]
    assert {row["said"] for row in rows} == {"é\n\u2028"}
    assert benchmark.asked == [[6, 5, 4], [3, 2, 1], [0]]


def test_a_run_that_was_cut_off_goes_on_where_it_was(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(Squares(9, fails_at=2), None, tmp_path, {"model": "m"}, batch_size=3)
    predictions = tmp_path / "predictions-0.jsonl"
    assert predictions.read_bytes().count(b"\n") == 6
    with predictions.open("a") as file:
        file.write('{"id": "n2", "squ')  # killed while it wrote
    (tmp_path / "predictions-1.jsonl").write_text('{"id": "n0", "square": 0, "said": "by another process"}\n{"id"')
    benchmark = Squares(9)
    rows = run_benchmark(benchmark, None, tmp_path, {"model": "m"}, batch_size=3)
    assert benchmark.asked == [[2, 1]]
    assert [row["square"] for row in rows] == [number**2 for number in range(9)]
    assert rows[0]["said"] == "by another process"
    assert [json.loads(line)["id"] for line in predictions.read_bytes().splitlines()[-2:]] == ["n2", "n1"]
    again = Squares(9)
    assert run_benchmark(again, None, tmp_path, {"model": "m"}, batch_size=2) == rows
    assert again.asked == []


@pytest.mark.parametrize(
    ("count", "identity", "message"),
    [
        (9, {"model": "other"}, 'model was "m" and is "other"; name another folder'),
        (8, {"model": "m"}, "examples was 9 and is 8"),
        (9, {"model": "m", "beams": 4}, "beams was null and is 4"),
        (9, {}, 'model was "m" and is null'),
    ],
)
def test_predictions_of_another_run_are_never_mixed_in(tmp_path: Path, count: int, identity: dict, message: str):
    run_benchmark(Squares(9), None, tmp_path, {"model": "m"})
    before = (tmp_path / "predictions-0.jsonl").read_bytes()
    with pytest.raises(EvaluationError, match=message):
        run_benchmark(Squares(count), None, tmp_path, identity)
    assert (tmp_path / "predictions-0.jsonl").read_bytes() == before


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(EvaluationError, match="file cannot hold predictions"):
        run_benchmark(Squares(1), None, tmp_path / "file")
