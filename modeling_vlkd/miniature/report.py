"""Show the demo's results: a table on the terminal, a self-contained page, and a picture for the README."""

import json
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.table import Table

from modeling_vlkd.evaluation.page import document, html_table, picture_source

from .scoring import Predictions
from .world import Split


# The rows of the table: the key of a score in `vlkd demo --json`, and its label.
ROWS = {
    "overall": "all questions",
    "shape": "what shape",
    "colour": "what color",
    "yes_no_colour": "yes/no on color, balanced",
    "yes_no_shape": "yes/no on shape, balanced",
    "trained_templates": "18 templates seen in text",
    "heldout_templates": "6 templates held out",
    "blind": "without the picture",
    "shuffled": "with another picture",
    "caption": "caption, word for word",
    "retrieval_i2t": "retrieval, caption of a picture",
    "retrieval_t2i": "retrieval, picture of a caption",
    "text_before": "reading text, before",
    "text_after": "reading text, after",
}
BASELINES = {
    "majority": "commonest answer",
    "question_only": "commonest answer to the question",
    "clip_retrieval_i2t": "CLIP, caption of a picture",
    "clip_retrieval_t2i": "CLIP, picture of a caption",
}
# The rows of both that are shown in the README; docs/results.md has all.
MAIN_ROWS = (
    "overall",
    "yes_no_colour",
    "heldout_templates",
    "caption",
    "text_before",
    "text_after",
    "blind",
    "question_only",
)
RUNS = {"paper": "paper's losses", "replay": "with text replay"}
STYLE = "img{width:96px;image-rendering:pixelated}"  # of pictures of 64 pixels


def show(value: float | None, spread: float | None) -> str:
    """Format a score and its spread over seeds; a score that a run does not have is an empty text."""
    if value is None:
        return ""
    return f"{value:.3f}" if spread is None else f"{value:.3f} ± {spread:.3f}"


def score_rows(
    runs: dict[str, dict[str, float]], baselines: dict[str, float], names: Sequence[str] = (*ROWS, *BASELINES)
) -> list[list[str]]:
    """Return the rows of the table as texts: a label, and a cell for each run. Baselines are the same for all runs."""
    rows = []
    for name, label in ROWS.items():
        if name in names:
            rows.append([label, *(show(run.get(name), run.get(f"{name}_std")) for run in runs.values())])
    for name, label in BASELINES.items():
        if name in names:
            rows.append([f"baseline: {label}", *(show(baselines[name], None) for _ in runs)])
    return rows


def score_table(runs: dict[str, dict[str, float]], baselines: dict[str, float]) -> Table:
    """Make the table for the terminal."""
    table = Table("easy-VQA, official test split")
    for name in runs:
        table.add_column(RUNS[name], justify="right")
    for number, row in enumerate(score_rows(runs, baselines), start=1):
        table.add_row(*row, end_section=number == len(ROWS))
    return table


def demo_command(result: dict) -> str:
    """Return the command line of the demo that wrote this result."""
    seeds, words = result["seeds"], ["vlkd demo"]
    if len(seeds) > 1:
        words.append(f"--seeds {len(seeds)}")
    if seeds[0] != 0:
        words.append(f"--seed {seeds[0]}")
    if result["recipe"].get("from_scratch"):
        words.append("--from-scratch")
    return " ".join(words)


def markdown_table(result: dict, names: Sequence[str] = (*ROWS, *BASELINES)) -> str:
    """Return the table in Markdown, from the result that `vlkd demo --json` wrote, with the command in its head."""
    runs = result["runs"]
    lines = [f"`{demo_command(result)}`, easy-VQA's official test split | " + " | ".join(RUNS[name] for name in runs)]
    lines.append(" | ".join(["---", *("---:" for _ in runs)]))
    lines += [" | ".join(row) for row in score_rows(runs, result["baselines"], names)]
    return "\n".join(f"| {line} |" for line in lines)


def choose_pictures(split: Split, predictions: Predictions, wrong: int, right: int) -> tuple[list[int], list[int]]:
    """Choose the first pictures with a wrong answer, and the first with right answers only.

    Args:
        wrong, right: how many of each.
    """
    right_of = np.ones(len(split.images), dtype=bool)  # for each picture
    for truth, picture, found in zip(split.answers, split.image_index, predictions.answers):
        right_of[picture] &= found.text == truth
    return np.flatnonzero(~right_of)[:wrong].tolist(), np.flatnonzero(right_of)[:right].tolist()


def figure(split: Split, predictions: Predictions, picture: int) -> str:
    """Write the HTML of one picture with its caption and all questions about it."""
    items = []
    for question, truth, about, found in zip(split.questions, split.answers, split.image_index, predictions.answers):
        if about == picture:
            mark, note = ("right", "") if found.text == truth else ("wrong", f", truth: {escape(truth)}")
            answer = f'<b class="{mark}">{escape(found.text)}</b> ({found.score:.2f}{note})'
            items.append(f"<li>{escape(question)} {answer}</li>")
    source = picture_source(Image.fromarray(split.images[picture]))
    caption = predictions.captions[picture]
    words = f"A picture of {escape(caption.text)} ({caption.score:.2f})"
    return f'<figure><img src="{source}" alt=""><figcaption>{words}</figcaption><ul>{"".join(items)}</ul></figure>'


def write_page(
    path: Path, split: Split, predictions: Predictions, runs: dict[str, dict[str, float]], baselines: dict[str, float]
):
    """Write the report: the table, pictures with mistakes, and pictures without."""
    wrong, right = choose_pictures(split, predictions, 24, 24)
    head = ["easy-VQA, official test split", *(RUNS[name] for name in runs)]
    parts = [
        "<p>A frozen CLIP, distilled into a BART that was trained on text alone, answers questions about pictures. No "
        "question with a picture was in any training; what follows is the run with text replay.</p>",
        html_table(head, score_rows(runs, baselines)),
        "<h2>Pictures with a wrong answer</h2><div class=grid>",
        *(figure(split, predictions, picture) for picture in wrong),
        "</div><h2>Pictures with right answers only</h2><div class=grid>",
        *(figure(split, predictions, picture) for picture in right),
        "</div>",
    ]
    path.write_text(document("VLKD in miniature", parts, STYLE), encoding="utf-8")


def write_picture(path: Path, split: Split, predictions: Predictions, columns: int = 4, rows: int = 2):
    """Draw the first test pictures as one PNG, each with its caption and three answers, in green or red."""
    width, height, side = 300, 196, 96
    font, sheet = ImageFont.load_default(size=13), Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for picture in range(columns * rows):
        left, top = picture % columns * width + 12, picture // columns * height + 12
        sheet.paste(Image.fromarray(split.images[picture]).resize((side, side), Image.Resampling.LANCZOS), (left, top))
        draw.rectangle((left, top, left + side, top + side), outline="#bbbbbb")
        caption = predictions.captions[picture].text
        draw.text((left + side + 10, top), f"A picture of\n{caption}", fill="#222222", font=font, spacing=4)
        asked = [place for place, about in enumerate(split.image_index) if about == picture][:3]
        for line, place in enumerate(asked):
            found, truth = predictions.answers[place].text, split.answers[place]
            y = top + side + 10 + 22 * line
            draw.text((left, y), split.questions[place], fill="#555555", font=font)
            end = left + draw.textlength(split.questions[place] + " ", font=font)
            draw.text((end, y), found, fill="#116329" if found == truth else "#b00020", font=font, stroke_width=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


if __name__ == "__main__":
    recorded = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(markdown_table(recorded, MAIN_ROWS), markdown_table(recorded), sep="\n\n")
