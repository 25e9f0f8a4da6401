"""Files of questions about pictures, with answers: for finetuning, and for evaluation during a distillation."""

from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from modeling_vlkd.processing_vlkd import VLKDProcessor, open_image

from .evaluation import QuestionSet


def read_questions(path: str | Path) -> list[dict[str, str]]:
    """Read a CSV or JSON-lines file with the columns `image`, `question` and `answer`.

    Images are paths, relative to the file.

    Raises:
        FileNotFoundError, ValueError: no such file, no such column, or an empty field, by row.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a CSV or JSON-lines file with image, question, answer.")
    if path.suffix not in (".csv", ".jsonl", ".json"):
        raise ValueError(f"{path} is neither .csv nor .jsonl; give a file with the columns image, question, answer.")
    table = datasets.load_dataset("csv" if path.suffix == ".csv" else "json", data_files=str(path), split="train")
    missing = {"image", "question", "answer"} - set(table.column_names)
    if missing:
        raise ValueError(f"{path} has no column {min(missing)!r}; it has {', '.join(table.column_names)}.")
    rows = []
    for number, row in enumerate(table):
        fields = {name: str(row[name] or "").strip() for name in ("image", "question", "answer")}
        if not all(fields.values()):
            empty = min(name for name, value in fields.items() if not value)
            raise ValueError(f"Row {number} of {path} has an empty {empty}; fill it in or leave the row out.")
        rows.append(fields | {"image": str(path.parent / fields["image"])})
    return rows


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
