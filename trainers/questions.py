"""Files of questions about pictures, with answers: for finetuning, and for evaluation during a distillation."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from modeling_vlkd.processing_vlkd import VLKDProcessor, open_image

from .evaluation import QuestionSet


COLUMNS = ("image", "question", "answer")


def read_questions(path: str | Path) -> list[dict[str, str]]:
    """Read a CSV or JSON-lines file with the columns `image`, `question` and `answer`.

    Images are paths, relative to the file.

    Raises:
        FileNotFoundError, ValueError: no such file, no such column, or a line that cannot be read, by its number.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a CSV or JSON-lines file with image, question, answer.")
    if path.suffix not in (".csv", ".jsonl", ".json"):
        raise ValueError(f"{path} is neither .csv nor .jsonl; give a file with the columns image, question, answer.")
    rows = []
    # Not read by `datasets`, to which the answers "None" and "NA" are no text, and "007" is a number.
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            for line, row in read_csv(file, path) if path.suffix == ".csv" else read_json(file, path):
                if missing := [name for name in COLUMNS if name not in row]:
                    raise ValueError(f"Line {line} of {path} has no column {missing[0]!r}; it has {', '.join(row)}.")
                fields = {name: "" if row[name] is None else str(row[name]).strip() for name in COLUMNS}
                if empty := [name for name, value in fields.items() if not value]:
                    raise ValueError(f"Line {line} of {path} has an empty {empty[0]}; fill it in or leave it out.")
                rows.append(fields | {"image": str(path.parent / fields["image"])})
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 ({error.reason}); save it again as UTF-8.") from error
    if not rows:
        raise ValueError(f"{path} holds no questions; give a file with the columns image, question, answer.")
    return rows


def read_csv(file: TextIO, path: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Give each row with the number of its (last) line."""
    reader = csv.DictReader(file, strict=True)
    try:
        for row in reader:
            if None in row:
                raise ValueError(
                    f"Line {reader.line_num} of {path} has more fields than the {len(reader.fieldnames or ())} of the "
                    "first line; put quotes around a text with a comma in it."
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"Line {reader.line_num} of {path} is no CSV ({error}); mend its quotes.") from error


def read_json(file: TextIO, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give each object with the number of its line."""
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"Line {number} of {path} is no JSON ({error.msg}); give one object a line.") from error
        if not isinstance(row, dict):
            raise ValueError(f"Line {number} of {path} is no JSON object but {line.strip():.40}; give one a line.")
        yield number, row


@torch.no_grad()
def embed_pictures(paths: list[str], model: PreTrainedModel, processor: VLKDProcessor, batch_size: int = 64) -> Tensor:
    """Compute the rows V of pictures by path: `(pictures, rows, dim)`."""
    parts = []
    with tqdm(total=len(paths), desc="Image rows", unit="picture") as progress:
        for first in range(0, len(paths), batch_size):
            pictures = [open_image(path) for path in paths[first : first + batch_size]]
            pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
            parts.append(model.get_image_rows(pixels.to(model.device, model.dtype)).float().cpu())
            progress.update(len(pictures))
    return torch.cat(parts)


def make_question_set(rows: list[dict[str, str]], model: PreTrainedModel, processor: VLKDProcessor) -> QuestionSet:
    """Look at each picture once and keep its rows."""
    paths = sorted({row["image"] for row in rows})
    place = {path: index for index, path in enumerate(paths)}
    return QuestionSet(
        questions=[row["question"] for row in rows],
        answers=[row["answer"] for row in rows],
        image_embeds=embed_pictures(paths, model, processor),
        image_index=[place[row["image"]] for row in rows],
    )


def finetuning_examples(question_set: QuestionSet) -> list[dict[str, Any]]:
    """Give each question with its image rows and its answer, as [`VLKDDataCollator`] takes them."""
    embeds, index = question_set.image_embeds, question_set.image_index
    if embeds is None or index is None:
        raise ValueError("Expected `image_embeds` and `image_index` in the set, as `make_question_set` gives them.")
    return [
        {"image_embeds": embeds[place], "question": question, "answer": answer}
        for place, question, answer in zip(index, question_set.questions, question_set.answers)
    ]
