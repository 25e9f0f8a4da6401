import json
import sys

import numpy as np
import pytest
from rich.console import Console

import modeling_vlkd
from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.report import Report, bootstrap_interval


def drawn(report: Report) -> str:
    console = Console(width=120, record=True, file=sys.stderr)
    console.print(report.table())
    return console.export_text()


def test_all_figures_are_in_the_file_and_in_the_table(tmp_path):
    groups = {"by_answer_type": {"yes/no": 75.0, "other": 5.25}}
    report = Report("vqa", 1234, 40.5, groups, {"accuracy": (38.0, 43.0)}, {"seed": 7})
    report.save(tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["overall"] == 40.5
    assert written["by_answer_type"] == groups["by_answer_type"]
    assert written["confidence_95"] == {"accuracy": [38.0, 43.0]}
    assert (written["seed"], written["examples"]) == (7, 1234)
    assert written["versions"]["modeling_vlkd"] == modeling_vlkd.__version__
    shown = drawn(report)
    for text in ("vqa, 1,234 examples", "40.50", "38.00 to 43.00", "75.00", "5.25"):
        assert text in shown


def test_several_figures_are_columns_and_groups_rows():
    by_domain = {"near": {"Bleu_4": 0.5, "CIDEr": 2}}
    report = Report("captioning", 2, {"Bleu_4": 0.25, "CIDEr": 1.5}, {"by_domain": by_domain})
    lines = drawn(report).splitlines()
    assert any(line.split() == ["│", "overall", "│", "0.250", "│", "1.500", "│"] for line in lines)
    assert any(line.split() == ["│", "near", "│", "0.500", "│", "2.000", "│"] for line in lines)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    (tmp_path / "out.json").mkdir()
    with pytest.raises(EvaluationError, match=r"out\.json cannot be written"):
        Report("vqa", 1, 100.0).save(tmp_path / "out.json")
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_the_interval_is_that_of_the_mean():
    """Of 400 draws with standard deviation 1, the mean strays by 1.96 / 20 in 95 % of samples."""
    scores = np.random.default_rng(3).normal(size=400)
    scores = (scores - scores.mean()) / scores.std()
    low, high = bootstrap_interval(scores.tolist())
    assert low == pytest.approx(-0.098, abs=0.015)
    assert high == pytest.approx(0.098, abs=0.015)
    assert bootstrap_interval([50.0] * 9) == (50.0, 50.0)
    assert bootstrap_interval(scores.tolist(), seed=1) != (low, high)
