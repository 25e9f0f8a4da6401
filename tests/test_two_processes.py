"""Two processes train to the weights, and log the losses, of one with twice the batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from two_processes import RUNS


@pytest.fixture(scope="module")
def of_two(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two_processes")
    script = Path(__file__).parent / "two_processes.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


def log_of(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_are_one_with_twice_the_batch(name: str, of_two: Path, tmp_path: Path):
    RUNS[name](tmp_path, 4)
    one, two = (load_file(folder / "model.safetensors") for folder in (tmp_path, of_two / name))
    assert one.keys() == two.keys()
    for weight, tensor in one.items():
        torch.testing.assert_close(two[weight], tensor, rtol=1e-4, atol=1e-6, msg=weight)
    expected, logged = log_of(tmp_path), log_of(of_two / name)
    compared = {"loss", "ttdm", "itcl", "icti", "replay", "logit_scale", "eval_retrieval_i2t", "eval_vqa_accuracy"}
    for entry, other in zip(expected, logged, strict=True):
        for term in compared & entry.keys():
            assert other[term] == pytest.approx(entry[term], rel=1e-4), term


def test_two_processes_count_each_example_once(of_two: Path):
    seen = [json.loads((of_two / "evaluated" / f"seen-{rank}.json").read_text()) for rank in (0, 1)]
    asked = [[position for batch in each["asked"] for position in batch] for each in seen]
    assert sorted(asked[0] + asked[1]) == list(range(11))
    assert min(map(len, asked)) >= 4
    for each in seen:
        assert [row["square"] for row in each["rows"]] == [number**2 for number in range(11)]


def test_a_grid_is_refused_in_two_processes(of_two: Path):
    for rank in (0, 1):
        assert "the grid runs in one process, and not in 2" in (of_two / f"grid-{rank}.txt").read_text()
    assert not (of_two / "grid").exists()
