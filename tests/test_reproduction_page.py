"""The page of the paper's tables: from made-up figures, and the one in `docs`."""

import io
import re
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from modeling_vlkd.miniature.reproducing import command_line
from modeling_vlkd.miniature.reproduction_page import (
    COLUMNS,
    draw,
    markdown,
    page,
    read_results,
    table_rows,
    terminal_table,
    verdict_lines,
)
from modeling_vlkd.miniature.tables import TABLES


DOCS = Path(__file__).parent.parent / "docs"
RESULTS = read_results(DOCS / "reproduce")


def scores(overall: float, caption: float, **more: float) -> dict[str, float]:
    return {"overall": overall, "yes_no": 0.5, "caption": caption, "cider": 4.0, "text_after": 0.75, **more}


@pytest.fixture
def result():
    """Two seeds of three rows: unfrozen, answers are clearly worse and captions are not."""
    asked = {"retrieval_i2t": 1.0, "blind": 0.375, "shuffled": 0.5}
    rows = {
        "full": [scores(0.75, 1.0, **asked), scores(0.875, 0.5, **asked)],
        "unfrozen": [scores(0.5, 0.875, **asked), scores(0.625, 0.75, **asked)],
        "frozen-prefix": [scores(0.25, 0.25), scores(0.5, 0.25)],
    }
    return {
        "table": "frozen-clip",
        "seeds": [3, 4],
        "steps": 300,
        "command": "vlkd reproduce frozen-clip --seeds 2 --seed 3",
        "each_seed": {"paper": rows},
        "baselines": {"majority": 0.373, "question_only": 0.668, "text_before": 0.995},
    }


def test_rows_have_mean_and_spread_and_blanks_where_nothing_was_measured(result):
    (heading, rows), (other, beside) = table_rows(result)
    assert (heading, other) == ("the paper's losses", "beside it")
    assert rows[0][:4] == ["CLIP frozen", "0.812 ± 0.088", "0.500 ± 0.000", "0.750 ± 0.354"]
    assert rows[0][4:] == ["4.000 ± 0.000", "1.000 ± 0.000", "0.750 ± 0.000"]
    assert [row[0] for row in rows] == ["CLIP frozen", "CLIP's vision tower trained too"]
    found = {row[0]: row[1:] for row in beside}
    assert found["Frozen-style prefix, same budget"][4] == ""  # no retrieval
    assert found["full method with another picture"][0] == "0.500 ± 0.000"
    assert found["commonest answer"] == ["0.373", "", "", "", "", ""]
    assert found["BART before"] == ["", "", "", "", "", "0.995"]
    assert {len(row) for row in [*rows, *beside]} == {1 + len(COLUMNS)}


def test_claims_are_judged_from_the_figures(result):
    assert verdict_lines(result, "paper") == [
        "With CLIP unfrozen, questions are answered worse: holds here (0.562 against 0.812, spread 0.088).",
        "With CLIP unfrozen, captions are worse: does not hold here, no clear difference (0.812 against 0.750, "
        "spread 0.258).",
    ]


def test_terminal_and_page_show_the_same_figures(result):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_table(result))
    drawn, written = console.export_text(), markdown(result, "frozen-clip.png")
    pairs = re.findall(r"(\d\.\d{3}) ± (\d\.\d{3})", written)
    assert len(pairs) == 2 * 6 + 5 + 2
    for mean, spread in pairs:
        assert re.search(rf"│ +{mean} │", drawn)
        assert re.search(rf"│ +±{spread} │", drawn)
    assert "…" not in drawn
    assert "`vlkd reproduce frozen-clip --seeds 2 --seed 3`" in written
    assert "(frozen-clip.png)" in written


def test_the_plot_is_a_small_picture(result, tmp_path):
    draw(result, tmp_path / "new" / "plot.png")
    assert (tmp_path / "new" / "plot.png").stat().st_size < 60_000
    with Image.open(tmp_path / "new" / "plot.png") as picture:
        assert picture.width > picture.height > 100


def test_the_command_says_what_is_not_the_default():
    assert command_line("masks", ["paper"], [0, 1, 2], 300) == "vlkd reproduce masks --seeds 3"
    words = "vlkd reproduce masks --seeds 1 --seed 4 --variants paper replay --steps 30"
    assert command_line("masks", ["paper", "replay"], [4], 30) == words


def test_the_page_in_docs_is_what_the_recorded_figures_give():
    assert RESULTS
    assert (DOCS / "reproduce.md").read_text(encoding="utf-8") == page(RESULTS, "reproduce")


@pytest.mark.parametrize("result", RESULTS, ids=[result["table"] for result in RESULTS])
def test_recorded_tables_are_whole(result):
    names = [row.name for row in TABLES[result["table"]].rows]
    first, *others = result["each_seed"].values()
    assert list(first) == names
    assert all(list(rows) == names[:-1] for rows in others)  # without the prefix
    for rows in result["each_seed"].values():
        assert {len(each) for each in rows.values()} == {len(result["seeds"])}
    assert (DOCS / "reproduce" / f"{result['table']}.png").stat().st_size < 60_000
    assert result["command"] == command_line(result["table"], result["each_seed"], result["seeds"], result["steps"])
    assert result["world"] == "miniature"
