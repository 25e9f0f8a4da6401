import json
import sys

import numpy as np
import pytest
from rich.console import Console

import modeling_vlkd
from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.report import Report, bootstrap_interval, bootstrap_ratio, compare


def drawn(report: Report) -> str:
    console = Console(width=120, record=True, file=sys.stderr)
    console.print(*report.tables())
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


def test_several_figures_are_rows_and_parts_have_a_table_of_their_own():
    by_domain = {"near": {"Bleu_4": 0.5, "CIDEr": 2}}
    report = Report(
        "retrieval", 2, {"Bleu_4": 0.25, "median_rank": 1501.5}, {"by_domain": by_domain}, {"Bleu_4": (0, 1)}
    )
    lines = [line.strip(" │").rstrip(" │").split() for line in drawn(report).splitlines()]
    assert ["Bleu_4", "│", "0.250", "│", "0.000", "to", "1.000"] in lines
    assert ["median_rank", "│", "1,501.5"] in lines
    assert ["near", "│", "0.500", "│", "2.000"] in lines


def test_models_are_compared_figure_by_figure():
    reports = {name: Report("retrieval", 2, {"R@1": share, "R@5": 0.5}) for name, share in (("a", 0.1), ("b", 0.2))}
    assert [list(column.cells) for column in compare(reports).columns] == [
        ["R@1", "R@5"],
        ["0.100", "0.500"],
        ["0.200", "0.500"],
    ]
    reports = {name: Report("vqa", 2, value, {}, {"accuracy": (1, 9)}) for name, value in (("a", 5.0), ("b", 6.5))}
    assert [list(column.cells) for column in compare(reports).columns] == [
        ["a", "b"],
        ["5.00", "6.50"],
        ["1.00 to 9.00", "1.00 to 9.00"],
    ]


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


def test_the_bootstrap_of_a_ratio_is_that_of_a_mean_where_all_wholes_are_equal():
    shares = np.random.default_rng(1).random(50)
    interval = bootstrap_ratio(shares, np.full(50, 2.0), seed=3)
    assert interval == pytest.approx(bootstrap_interval((shares / 2).tolist(), seed=3))
    assert bootstrap_ratio(3 * shares, shares) == pytest.approx((3, 3))
