"""Show an evaluation on one page of HTML that needs nothing else: its figures, and examples with their pictures."""

import base64
import io
import random
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image
from rich.table import Table

from modeling_vlkd.processing_vlkd import open_image

from .json_files import write_text_file
from .report import ScoredExample


SIDE = 160  # pixels of the longer side of a picture on the page, at most
QUALITY = 75  # of JPEG: 72 pictures of that size take less than 1.5 MB, even if they are noise
MOST_LETTERS, MOST_TRUTHS = 500, 5  # of each text, and of the texts that are right
RIGHT = 0.5  # answers of at least this score are green
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .9rem;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}.grid{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,20rem)}
figure{margin:0;padding:.8rem;border:1px solid #ddd;border-radius:.5rem;overflow-wrap:anywhere}
img{border:1px solid #ccc}ul{padding-left:1.1rem;margin:.5rem 0}p{margin:.3rem 0}
.wrong{color:#b00020}.right{color:#116329}.small{color:#666;font-size:.85em}
"""


def write_page(
    path: str | Path,
    title: str,
    tables: Sequence[Table],
    examples: Sequence[ScoredExample],
    seed: int = 0,
    each: int = 24,
):
    """Write the page of an evaluation: tables, and examples of the highest scores, of the lowest, and drawn by chance.

    Texts are cut after 500 letters and pictures shrunk to 160 pixels, so that the page stays below 2 MB. A picture
    that cannot be read is named.

    Args:
        tables: as those of [`Report.tables`].
        seed: of the draw, also among examples of equal score.
        each: how many examples of each kind.

    Raises:
        EvaluationError: it cannot be written there; what stood there before stays.
    """
    parts = [html_table(columns_of(table), rows_of(table)) for table in tables]
    for heading, chosen in choose_examples(examples, seed, each).items():
        if chosen:
            parts += [f"<h2>{escape(heading)}</h2><div class=grid>", *map(example_figure, chosen), "</div>"]
    write_text_file(Path(path), document(title, parts))


def document(title: str, parts: Iterable[str], more_style: str = "") -> str:
    """Put parts of HTML into a page with a heading and the style, to which a page may add its own."""
    head = f"<meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}{more_style}</style>"
    return "\n".join(["<!doctype html><html lang=en>" + head, f"<h1>{escape(title)}</h1>", *parts, "</html>"]) + "\n"


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table of texts as HTML."""
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def columns_of(table: Table) -> list[str]:
    return [str(column.header) for column in table.columns]


def rows_of(table: Table) -> list[tuple[str, ...]]:
    return list(zip(*(map(str, column.cells) for column in table.columns)))


def choose_examples(examples: Sequence[ScoredExample], seed: int, each: int) -> dict[str, list[ScoredExample]]:
    """Choose examples for each section, by its heading; none is among the highest and the lowest.

    Of examples with equal scores, the seed draws which. Those without a score are only in the last section.
    """
    drawn = random.Random(seed).sample(list(examples), len(examples))
    ranked = sorted(
        (example for example in drawn if example.score is not None), key=lambda example: example.score or 0
    )
    low = ranked[: min(each, len(ranked) // 2)]
    high = ranked[len(low) :][::-1][:each]
    return {"Highest scores": high, "Lowest scores": low, "Drawn at random": drawn[:each]}


def example_figure(example: ScoredExample) -> str:
    """Write one example: its picture, what was asked and said, what is right and the score."""
    truth = [shorten(text) for text in example.truth[:MOST_TRUTHS]]
    if more := len(example.truth) - len(truth):
        truth.append(f"and {more} more")
    mark = "" if example.score is None else f' class="{"right" if example.score >= RIGHT else "wrong"}"'
    score = "" if example.score is None else f"score {example.score:.2f}, "
    lines = [
        "" if example.image is None else picture_html(example.image),
        f"<p>{escape(shorten(example.asked))}</p>" if example.asked else "",
        f"<p><b{mark}>{escape(shorten(example.said)) or '(nothing)'}</b></p>",
        f"<p>right: {escape('; '.join(truth))}</p>" if truth else "",
        f"<p class=small>{score}{escape(str(example.id))}</p>",
    ]
    return f"<figure>{''.join(lines)}</figure>"


def shorten(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"


def picture_html(path: str) -> str:
    """Write a picture into the page, or the name of one that cannot be read."""
    try:
        picture = open_image(path)
    except (ValueError, OSError):
        return f"<p class=small>{escape(Path(path).name)} cannot be read</p>"
    picture.thumbnail((SIDE, SIDE))
    return f'<img src="{picture_source(picture)}" alt="{escape(Path(path).name)}">'


def picture_source(picture: Image.Image) -> str:
    """Encode a picture as a `data:` URI, as PNG or JPEG, whichever is smaller."""
    encoded = {}
    kinds: dict[str, dict[str, Any]] = {"png": {"optimize": True}, "jpeg": {"quality": QUALITY}}
    for kind, options in kinds.items():
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        encoded[kind] = buffer.getvalue()
    kind = min(encoded, key=lambda name: len(encoded[name]))
    return f"data:image/{kind};base64,{base64.b64encode(encoded[kind]).decode()}"
