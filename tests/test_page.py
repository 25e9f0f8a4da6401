import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.table import Table

from modeling_vlkd.evaluation.page import choose_examples, write_page
from modeling_vlkd.evaluation.report import Report, ScoredExample


def sections(page: str) -> dict[str, list[str]]:
    """The figures under each heading."""
    parts = re.split(r"<h2>(.*?)</h2>", page)
    return {name: re.findall("<figure>.*?</figure>", part) for name, part in zip(parts[1::2], parts[2::2])}


@pytest.fixture
def write(tmp_path) -> Callable[..., str]:
    def write(examples: list[ScoredExample], *tables: Table, title: str = "Questions", **kwargs) -> str:
        write_page(tmp_path / "page.html", title, tables, examples, **kwargs)
        return (tmp_path / "page.html").read_text(encoding="utf-8")

    return write


def test_the_page_shows_figures_pictures_and_what_was_said(write, tmp_path):
    Image.new("RGB", (400, 200), "red").save(tmp_path / "red.png")
    right = ScoredExample(7, 1.0, "red", ["red", "crimson"], "what color is it?", str(tmp_path / "red.png"))
    wrong = ScoredExample("b", 0.25, "", ["a long text"], "summarize")
    page = write([right, wrong], *Report("vqa", 2, 62.5, {"by_answer_type": {"other": 62.5}}).tables())
    assert "<th>overall</th>" in page
    assert "<tr><td>other</td><td>62.50</td></tr>" in page
    found = sections(page)
    [high], [low] = found["Highest scores"], found["Lowest scores"]
    assert '<b class="right">red</b>' in high
    assert "what color is it?" in high
    assert "right: red; crimson" in high
    assert "score 1.00, 7" in high
    kind, data = re.search('src=.data:image/(png|jpeg);base64,([^"]*)', high).groups()
    shown = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (shown.format, shown.size) == (kind.upper(), (160, 80))
    assert shown.convert("RGB").getpixel((80, 40)) == (255, 0, 0)
    assert '<b class="wrong">(nothing)</b>' in low
    assert "<img" not in low
    assert len(found["Drawn at random"]) == 2


def test_what_people_wrote_is_no_html(write):
    text = "<script>alert('&')</script>"
    page = write([ScoredExample(text, 1.0, text, [text], text, f"{text}.png")], Table(text), title=text)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&#x27;&amp;&#x27;)") >= 6  # title twice, table, and the example's own


def test_a_picture_that_cannot_be_read_is_named(write, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    names = [str(tmp_path / "broken.png"), str(tmp_path / "lost.png")]
    page = write([ScoredExample(n, 0.0, "x", ["y"], image=name) for n, name in enumerate(names)])
    assert "broken.png cannot be read" in page
    assert "lost.png cannot be read" in page
    assert str(tmp_path) not in page


def test_the_page_is_small_whatever_is_on_it(write, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    long = "a & " * 5000
    page = write([ScoredExample(n, 0.5, long, [long] * 10, long, str(tmp_path / "noise.png")) for n in range(100)])
    assert len(page.encode()) < 2_000_000
    assert "and 5 more" in page
    assert [len(figures) for figures in sections(page).values()] == [24, 24, 24]


def test_examples_are_chosen_by_their_scores_and_the_seed():
    examples = [ScoredExample(n, n / 99, "", []) for n in range(100)]
    chosen = choose_examples(examples, seed=0, each=3)
    assert [example.id for example in chosen["Highest scores"]] == [99, 98, 97]
    assert [example.id for example in chosen["Lowest scores"]] == [0, 1, 2]
    assert choose_examples(examples, seed=0, each=3) == chosen
    assert choose_examples(examples, seed=1, each=3)["Drawn at random"] != chosen["Drawn at random"]
    equal = [ScoredExample(n, 1.0, "", []) for n in range(100)]  # the seed draws which of them
    high = {seed: choose_examples(equal, seed, each=3)["Highest scores"] for seed in (0, 1)}
    assert high[0] != high[1]


def test_few_examples_are_not_both_high_and_low():
    chosen = choose_examples([ScoredExample(n, n / 2, "", []) for n in range(3)], seed=0, each=24)
    assert [example.id for example in chosen["Highest scores"]] == [2, 1]
    assert [example.id for example in chosen["Lowest scores"]] == [0]


def test_without_scores_there_is_only_a_draw(write):
    page = write([ScoredExample(n, None, "a box", []) for n in range(5)], each=2)
    assert list(sections(page)) == ["Drawn at random"]
    assert "<b>a box</b>" in page
    assert "score" not in page
    assert "right:" not in page


def test_a_page_that_cannot_be_written_is_an_error_of_one_line(tmp_path: Path):
    with pytest.raises(ValueError, match="nothing was changed"):
        write_page(tmp_path / "nowhere" / "page.html", "t", [], [])
