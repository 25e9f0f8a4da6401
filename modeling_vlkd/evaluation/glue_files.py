"""Read the examples of a GLUE task, the official `.tsv` files included, and write predictions for the GLUE server."""

import csv
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import EvaluationError
from .glue_tasks import GlueTask
from .json_files import write_text_file
from .tables import refuse_other_encodings
from .text_tables import DEV, TEST, TRAIN, read_texts, refuse_split_of_one_table


logger = logging.getLogger(__name__)
COLA = ("source", "label", "mark", "sentence")  # columns of CoLA's official files with labels, which name none
UNLABELED = (-1, None, "", "-1")


@dataclass(frozen=True)
class GlueExample:
    """One example of a task.

    Args:
        index: its number, as the server counts them; by default its place in the file.
        texts: one, or two.
        label: number of its class, or the number to predict; None in a test split.
    """

    index: int
    texts: tuple[str, ...]
    label: int | float | None = None


def read_glue(task: GlueTask, source: str | Path, split: str = DEV, default: str = DEV) -> list[GlueExample]:
    """Read the examples of a task.

    Args:
        source: an official `.tsv` file, or the folder of the official download (`SST-2`, or the one above it); CSV,
            JSON lines or parquet with the columns that `datasets` has for the task (`sentence` and `label` of SST-2);
            a folder that `datasets` has saved; or a Hub id.
        split: `train`, `validation` or `test`, of a source with several.
        default: the split that one table is read for, which has no other.

    Raises:
        EvaluationError: there is no such source, split or column, nothing in it, a text that is missing, or a label
            that the task does not have; with its line or row.
    """
    refuse_split_of_one_table(Path(source), split, default)
    path = official_file(task, Path(source), split)
    if path is not None:
        rows, texts, label = list(read_tsv(path, task)), task.texts_in_tsv or task.columns, task.label_in_tsv
        if not rows:
            raise EvaluationError(f"{path} holds no examples; fetch it again.")
    else:
        rows = read_texts(source, task.columns, split, task.hub_config, task.part)
        texts, label = task.columns, "label"
    examples = [
        GlueExample(
            read_index(row.get("index", row.get("idx")), number, place),
            read_words(row, texts, place),
            read_label(row.get(label), task, place),
        )
        for number, (place, row) in enumerate(rows)
    ]
    if len({example.index for example in examples}) < len(examples):  # those of QQP's training questions repeat
        examples = [GlueExample(number, each.texts, each.label) for number, each in enumerate(examples)]
    return examples


def official_file(task: GlueTask, path: Path, split: str) -> Path | None:
    """Find the official `.tsv` file of a split; None if the source is of another kind."""
    if path.is_file():
        return path if path.suffix == ".tsv" else None
    name = {TRAIN: "train", DEV: task.dev, TEST: task.test}.get(split, split) + ".tsv"
    return next((file for file in (path / name, path / task.folder / name) if file.is_file()), None)


def read_tsv(path: Path, task: GlueTask) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give each row of an official file with its place.

    Fields are between tabs and never quoted. CoLA's files with labels have no line of names. As `datasets` does,
    leave out lines with fewer fields than there are columns, of which the questions of QQP have some.

    Raises:
        EvaluationError: the file lacks a column of the task.
    """
    try:
        refuse_other_encodings(path)
    except ValueError as error:
        raise EvaluationError(str(error)) from error
    short = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        names = next(lines, [])
        wanted = task.texts_in_tsv or task.columns
        if task.name == "cola" and len(names) == len(COLA) and "sentence" not in names:
            file.seek(0)
            lines, names = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), list(COLA)
        if missing := [name for name in wanted if name not in names]:
            raise EvaluationError(
                f"{path} has no column {missing[0]!r} between tabs; it has {', '.join(names) or 'none'}: give the "
                f"official file of {task.title}."
            )
        for fields in lines:
            if len(fields) < len(names):
                short.append(lines.line_num)
                continue
            yield f"Line {lines.line_num} of {path}", dict(zip(names, fields))
    if short:
        logger.warning("%s: %d lines with too few fields are left out, line %d first.", path, len(short), short[0])


def read_index(value: Any, number: int, place: str) -> int:
    if value is None or value == "":
        return number
    try:
        return int(value)
    except ValueError as error:
        raise EvaluationError(
            f"{place}: {value!r} is no index; write a whole number, or leave the column out."
        ) from error


def read_words(row: dict[str, Any], columns: Sequence[str], place: str) -> tuple[str, ...]:
    """Take the texts of a row. One of a pair may be empty, as a few of QQP's questions are."""
    texts = tuple(row[name] for name in columns)
    for name, text in zip(columns, texts):
        if not isinstance(text, str):
            raise EvaluationError(f"{place}: {name!r} is {text!r}; write a text or leave the row out.")
    if not any(text.strip() for text in texts):
        raise EvaluationError(f"{place} is empty; write a text or leave the row out.")
    return tuple(text.strip() for text in texts)


def read_label(value: Any, task: GlueTask, place: str) -> int | float | None:
    """Read a label: the number of a class or its name, or a number within the bounds; None of an unlabeled row.

    Raises:
        EvaluationError: the task does not have it.
    """
    if value in UNLABELED and (task.labels or value in (None, "")):
        return None
    if task.labels is None:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        low, high = task.bounds
        if value == -1 or (isinstance(value, float) and value == -1.0):  # the test split of `datasets`
            return None
        if not low <= number <= high:
            raise EvaluationError(
                f"{place}: {value!r} is no score of {task.title}; give a number {low:g} to {high:g}."
            )
        return number
    if value in task.labels:
        return task.labels.index(value)
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or int(text) >= len(task.labels):
        names = ", ".join(f"{number} ({name})" for number, name in enumerate(task.labels))
        raise EvaluationError(f"{place}: {value!r} is no label of {task.title}; give one of {names}.")
    return int(text)


def write_submission(folder: Path, task: GlueTask, indices: Sequence[int], predictions: Sequence[int | float]) -> Path:
    """Write predictions as the GLUE server takes them: `SST-2.tsv` with the columns `index` and `prediction`.

    Scores of STS-B are brought into 0 to 5, beyond which the server refuses them. The folder is made if need be.

    Raises:
        EvaluationError: it cannot be written there.
    """
    lines = ["index\tprediction"]
    for index, prediction in sorted(zip(indices, predictions)):
        if task.labels is None:
            shown = f"{min(max(float(prediction), task.bounds[0]), task.bounds[1]):.3f}"
        else:
            shown = task.labels[int(prediction)] if task.submits_names else str(int(prediction))
        lines.append(f"{index}\t{shown}")
    path = folder / f"{task.submission}.tsv"
    with suppress(OSError):  # writing says what is in the way
        folder.mkdir(parents=True, exist_ok=True)
    write_text_file(path, "\n".join(lines) + "\n")
    return path
