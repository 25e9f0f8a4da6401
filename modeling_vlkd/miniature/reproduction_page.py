"""Show what `vlkd reproduce` measured: a table on the terminal, a plot, and a page in Markdown."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from rich.table import Table

from .demo import mean_and_spread
from .report import show
from .tables import FULL, PREFIX_ROW, TABLES, VARIANTS, Row
from .verdicts import LITTLE, MUCH, judge_row


COLUMNS = {
    "overall": "all questions",
    "yes_no": "yes/no, balanced",
    "caption": "caption, word for word",
    "cider": "CIDEr",
    "retrieval_i2t": "retrieval",
    "text_after": "reading text",
}
WIDTH = 119  # of the page's lines
PLOTTED = ("overall", "yes_no", "caption")
COLORS = {"paper": "#1f5fa8", "unaligned": "#8a8a8a", "replay": "#c2571a"}


def variant_rows(result: dict[str, Any], variant: str) -> list[tuple[Row, list[dict[str, float]]]]:
    """List the rows that were measured in one variant, in the order of the table, with their scores for each seed."""
    found = result["each_seed"][variant]
    return [(row, found[row.name]) for row in TABLES[result["table"]].rows if row.name in found]


def cells(scores: list[dict[str, float]]) -> list[str]:
    """Format mean and spread of each column; a score that a system does not have is an empty text."""
    summary = mean_and_spread(scores)
    return [show(summary.get(name), summary.get(f"{name}_std")) for name in COLUMNS]


def baseline_rows(result: dict[str, Any]) -> list[list[str]]:
    """Give the rows of what is compared with: of the table's first variant, and of what needs no training."""
    first = next(iter(result["each_seed"]))
    full = mean_and_spread(result["each_seed"][first][FULL])
    blank = [""] * (len(COLUMNS) - 1)
    known = result["baselines"]
    asked = [
        ("full method without the picture", show(full["blind"], full.get("blind_std"))),
        ("full method with another picture", show(full["shuffled"], full.get("shuffled_std"))),
        ("commonest answer to the question", show(known["question_only"], None)),
        ("commonest answer", show(known["majority"], None)),
    ]
    rows = [[label, figure, *blank] for label, figure in asked]
    return [*rows, ["BART before", *blank, show(known["text_before"], None)]]


def table_rows(result: dict[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Give the sections of the table: a heading, and rows of cells, the label first."""
    sections = []
    for variant in result["each_seed"]:
        rows = [[row.label, *cells(scores)] for row, scores in variant_rows(result, variant) if not is_baseline(row)]
        sections.append((VARIANTS[variant][0], rows))
    first = next(iter(result["each_seed"]))
    prefix = [[row.label, *cells(scores)] for row, scores in variant_rows(result, first) if is_baseline(row)]
    return [*sections, ("beside it", [*prefix, *baseline_rows(result)])]


def is_baseline(row: Row) -> bool:
    return row.name == PREFIX_ROW


def verdict_lines(result: dict[str, Any], variant: str) -> list[str]:
    """Write a sentence on each claim of each row."""
    scores = result["each_seed"][variant]
    rows = variant_rows(result, variant)
    return [line for row, _ in rows for line in judge_row(row.claims, row.name, scores)]


def terminal_table(result: dict[str, Any]) -> Table:
    """Draw the table for the terminal."""
    table = Table("", title=title_of(result), title_justify="left")
    table.columns[0].min_width = 12  # of the longest word
    for label in COLUMNS.values():
        table.add_column(label, justify="right")
    for heading, rows in table_rows(result):
        table.add_row(f"[bold]{heading}")
        for number, row in enumerate(rows, start=1):
            # The spread goes below the mean, so that all fits into 80 columns.
            table.add_row(*(cell.replace(" ± ", "\n±") for cell in row), end_section=number == len(rows))
    return table


def title_of(result: dict[str, Any]) -> str:
    table = TABLES[result["table"]]
    return f"{table.title} ({table.source}), {counted(len(result['seeds']), 'seed')}, {result['steps']} steps"


def counted(number: int, name: str) -> str:
    return f"{number} {name}{'s' * (number != 1)}"


def markdown(result: dict[str, Any], picture: str) -> str:
    """Write the section of a table: the figures, what holds, and the plot.

    Args:
        picture: where the plot is, as seen from the page.
    """
    table = TABLES[result["table"]]
    head = [f"`{result['command']}`", *COLUMNS.values()]
    lines = [f"## {table.title}", "", fill(f"The paper's {table.source}. {table.note}", WIDTH), ""]
    lines += [as_line(head), as_line(["---", *["---:"] * len(COLUMNS)])]
    for heading, rows in table_rows(result):
        lines += [as_line([f"**{heading}**", *[""] * len(COLUMNS)]), *map(as_line, rows)]
    for variant in result["each_seed"]:
        if sentences := verdict_lines(result, variant):
            lines += ["", f"Claims of the paper ({VARIANTS[variant][0]}):", "", *(f"- {each}" for each in sentences)]
    lines += ["", f"![{table.title}: mean and each seed]({picture})"]
    return "\n".join(lines) + "\n"


def as_line(row: Sequence[str]) -> str:
    return f"| {' | '.join(row)} |"


def draw(result: dict[str, Any], path: Path):
    """Draw means as diamonds and seeds as dots, a panel for each of `PLOTTED`, and save it as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # an extra; without pyplot, which may want a display
    from matplotlib.figure import Figure

    labels = [row.label for row in TABLES[result["table"]].rows]
    figure = Figure(figsize=(11, 1.2 + 0.42 * len(labels)), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    variants = list(result["each_seed"])
    for axes, name in zip(figure.subplots(1, len(PLOTTED), sharey=True), PLOTTED):
        for number, variant in enumerate(variants):
            shift = 0.18 * (number - (len(variants) - 1) / 2)
            for row, scores in variant_rows(result, variant):
                place, values = labels.index(row.label) + shift, [each[name] for each in scores]
                color = "black" if is_baseline(row) else COLORS[variant]
                axes.plot(values, [place] * len(values), "o", color=color, alpha=0.35, markersize=4)
                axes.plot(np.mean(values), place, "D", color=color, markersize=6)
        axes.set_title(COLUMNS[name], fontsize=10)
        axes.set_yticks(range(len(labels)), labels)
        axes.grid(axis="x", alpha=0.3)
        if name == "overall":
            axes.axvline(result["baselines"]["question_only"], color="black", linestyle=":", linewidth=1)
    axes.invert_yaxis()
    if len(variants) > 1:
        handles = [
            figure.axes[0].plot([], [], "D", color=COLORS[each], label=VARIANTS[each][0])[0] for each in variants
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(variants), fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def page(results: Sequence[dict[str, Any]], folder: str) -> str:
    """Write the page of all tables.

    Args:
        folder: of the plots, as seen from the page.
    """
    seeds = max(len(result["seeds"]) for result in results)
    parts = [INTRODUCTION.format(seeds=counted(seeds, "seed"), much=MUCH, little=LITTLE)]
    parts += [markdown(result, f"{folder}/{result['table']}.png") for result in results]
    return "\n".join(parts)


INTRODUCTION = """\
# The paper's tables in miniature

`vlkd reproduce TABLE` trains each row of a table of the paper (arXiv:2203.06386) in the miniature world of
`vlkd demo`, easy-VQA. It asks each the 9,673 test questions, and for captions of the 1,000 test pictures. Figures are
means over {seeds}, with standard deviations. This world is small: its captions have a dozen wordings, and CLIP tells
its 24 kinds of pictures apart nearly without a mistake. So a claim that does not hold here may well hold on
photographs, and what holds here is no proof for them.

A rule decides whether a claim holds, not the writer of this page. Two rows differ clearly if the difference of their
means is larger than the pooled standard deviation, and has the same sign for every seed. "Much" is clearly, and by
{much} or more; "about as well" is not clearly, or by {little} or less.

"Yes/no, balanced" is the mean over plain and negated questions, on colors and on shapes, and over those to be answered
yes and no. "Retrieval" is R@1 of each picture among 24 captions. "Reading text" is the share of questions about a
written passage that are answered right. The Frozen-style prefix (arXiv:2106.13884) trains CLIP's vision tower and a
matrix, whose output the same BART reads as four embeddings before its prompt; BART stays as it is. It embeds no texts,
so it has no retrieval. The dotted line in the plots is the commonest answer to each question.
"""


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Read the results of a folder, in the order of `TABLES`."""
    files = [folder / f"{name}.json" for name in TABLES]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]


if __name__ == "__main__":
    place = Path(sys.argv[1])
    print(page(read_results(place), place.name), end="")
