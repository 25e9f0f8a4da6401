"""The miniature's card is that of its recorded run."""

import copy
import json
import runpy
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from modeling_vlkd.miniature.card import demo_card
from modeling_vlkd.miniature.report import demo_command, markdown_table
from modeling_vlkd.publishing.card_checks import check_card


ROOT = Path(__file__).parent.parent
CARD = (ROOT / "model_cards" / "vlkd-miniature.md").read_text(encoding="utf-8")


@pytest.fixture
def recorded() -> dict:
    return json.loads((ROOT / "docs" / "demo.json").read_text(encoding="utf-8"))


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_command_prints_the_card_that_is_kept(monkeypatch, capsys):
    """Write it again with `python -m modeling_vlkd.miniature.card docs/demo.json > model_cards/vlkd-miniature.md`."""
    monkeypatch.setattr(sys, "argv", ["card", str(ROOT / "docs" / "demo.json")])
    runpy.run_module("modeling_vlkd.miniature.card", run_name="__main__")
    assert capsys.readouterr().out == CARD


def test_it_may_be_published():
    assert check_card(ROOT / "model_cards" / "vlkd-miniature.md") == []  # it shows no pictures


def test_figures_are_those_of_the_one_run_whose_weights_they_describe(recorded):
    first = recorded["each_seed"]["replay"][0]
    values = {result.metric_name: result.metric_value for result in ModelCard(CARD).data.eval_results}
    assert values["all questions"] == round(first["overall"], 4) != round(recorded["runs"]["replay"]["overall"], 4)
    assert values["caption, word for word"] == first["caption"]
    assert len(values) == 11
    assert "one run, of seed 0, whose weights lie here" in CARD
    assert f"Over the 3 seeds of that command, all questions have {recorded['runs']['replay']['overall']:.3f}" in CARD


def test_recorded_seeds_give_the_recorded_means(recorded):
    for name, run in recorded["runs"].items():
        each = [scores["overall"] for scores in recorded["each_seed"][name]]
        assert sum(each) / len(each) == pytest.approx(run["overall"])
        assert len(each) == len(recorded["seeds"])


def test_another_run_has_another_card(recorded):
    other = copy.deepcopy(recorded)
    other["seeds"], other["each_seed"]["replay"] = [4], [{**recorded["each_seed"]["replay"][0], "overall": 0.25}]
    other["recipe"] |= {"max_steps": 7, "from_scratch": True}
    other["parameters"]["all"] = 12_345
    text = demo_card(other).text
    for told in ("| seed | `4` |", "| max_steps | `7` |", "all questions | 0.25 |", "12,345 parameters"):
        assert told in text
    assert "vlkd demo --seed 4 --from-scratch" in text
    assert "Over the" not in text
    assert markdown_table(other).startswith("| `vlkd demo --seed 4 --from-scratch`")


def test_the_command_is_told_by_what_it_wrote(recorded):
    assert demo_command(recorded) == "vlkd demo --seeds 3"
    assert demo_command(recorded | {"seeds": [0]}) == "vlkd demo"
    assert demo_command(recorded | {"seeds": [2, 3]}) == "vlkd demo --seeds 2 --seed 2"
