"""`vlkd answer --questions FILE`: answers a table of questions about pictures into a table."""

import argparse
import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.json_files import write_text_file
from modeling_vlkd.evaluation.protocol import Answer
from modeling_vlkd.evaluation.questions import refuse_overlong_texts
from modeling_vlkd.evaluation.tables import filled_fields, read_table
from modeling_vlkd.evaluation.vlkd_model import VLKDAdapter
from modeling_vlkd.evaluation.vqa_files import write_results
from modeling_vlkd.processing_vlkd import SCHEMES

from .pictures import PictureReader, generation_settings, load_checkpoint


COLUMNS = ("image", "question")
ADDED, INSTEAD = ("answer", "score"), ("prediction", "prediction_score")  # ours; and where the table has those already
OUTPUTS = (".csv", ".jsonl", ".json")
RESULTS = ".json"
QUESTION_ID = "question_id"
URLS = (*SCHEMES, "file://")


@dataclass(frozen=True)
class Asked:
    """A row of the table.

    Args:
        row: all its columns, as they were read.
        image: a path that can be opened from here, or a URL.
        place: where it stands, for messages.
    """

    row: dict[str, Any]
    image: str
    question: str
    place: str


def answer_table(args: argparse.Namespace) -> int:
    """Answer a table as the command line says, and return the exit code: 2 if there are pictures that are broken."""
    refuse_output(args.output, args.questions)
    table = read_asked(args.questions)
    names = added_columns(table, args.questions)
    ids = question_ids(table) if args.output is not None and args.output.suffix == RESULTS else []
    model, processor = load_checkpoint(args.checkpoint, args.device)
    prompts = processor.question_prompts([each.question for each in table], args.masks)
    refuse_overlong_texts(
        prompts, [each.place for each in table], processor, "shorten the question or take fewer --masks"
    )
    adapter = VLKDAdapter(model, processor, args.batch_size, args.masks, **generation_settings(args))
    reader = PictureReader(list(dict.fromkeys(each.image for each in table)), args.batch_size)
    answers = answer_all(table, adapter, reader)
    if ids:
        write_results(args.output, {number: answer.text for number, answer in zip(ids, answers)})
        print(f"{len(table):,} answers are in {args.output}.")
        return reader.exit_code
    rows = [with_answer(each.row, answer, names) for each, answer in zip(table, answers)]
    if args.output is None:
        sys.stdout.write(as_csv(rows))
    else:
        write_text_file(args.output, as_csv(rows) if args.output.suffix == ".csv" else as_json_lines(rows))
        print(f"{len(table):,} answers are in {args.output}.")
    return reader.exit_code


def refuse_output(output: Path | None, questions: Path):
    """Stop, before anything is read, at an output that could not be written at the end."""
    if output is None:
        return
    if output.suffix not in OUTPUTS:
        raise ValueError(f"--output {output}: its name has to end in {', '.join(OUTPUTS)}.")
    if output.is_dir():
        raise ValueError(f"--output {output} is a folder; name a file.")
    if not output.resolve().parent.is_dir():
        raise ValueError(f"--output {output}: there is no folder {output.resolve().parent}.")
    if output.resolve() == questions.resolve():
        raise ValueError(f"--output {output} is the table of questions itself; give another name.")


def read_asked(path: Path) -> list[Asked]:
    """Read the table; whether its pictures can be read is seen only when it is their turn.

    Raises:
        FileNotFoundError, ValueError: no such file or column, no rows, or a line with an empty image or question.
    """
    table = []
    for line, row in read_table(path, COLUMNS):
        place = f"Line {line} of {path}"
        image, question = filled_fields(row, COLUMNS, place).values()
        image = image if image.startswith(URLS) else str(path.parent / image)
        table.append(Asked(row, image, question, place))
    if not table:
        raise ValueError(f"{path} holds no questions; give a file with the columns {', '.join(COLUMNS)}.")
    return table


def added_columns(table: Sequence[Asked], path: Path) -> tuple[str, str]:
    """Choose names for our columns that the table does not have: its own answers are what is right, and stay."""
    known = {name for each in table for name in each.row}
    chosen = [theirs if ours in known else ours for ours, theirs in zip(ADDED, INSTEAD)]
    if taken := [name for name in chosen if name in known]:
        raise ValueError(
            f"{path} has columns {ADDED[INSTEAD.index(taken[0])]!r} and {taken[0]!r}; rename one of them."
        )
    return chosen[0], chosen[1]


def question_ids(table: Sequence[Asked]) -> list[int]:
    """Take the ids that the official format of results needs.

    Raises:
        ValueError, EvaluationError: there are none, one is no whole number, or several are equal.
    """
    ids: dict[int, str] = {}
    for each in table:
        written = str(each.row.get(QUESTION_ID, "")).strip()
        if not written.isdecimal():
            raise ValueError(
                f"{each.place} has no whole number as {QUESTION_ID}, but {written!r}; results in {RESULTS} need it. "
                "Give --output a name in .csv or .jsonl instead."
            )
        if int(written) in ids:
            raise EvaluationError(
                f"{each.place} and {ids[int(written)]} have the same {QUESTION_ID}, {written}; number them anew."
            )
        ids[int(written)] = each.place
    return list(ids)


def answer_all(table: Sequence[Asked], adapter: VLKDAdapter, reader: PictureReader) -> list[Answer]:
    """Answer all rows, in their order; each picture is looked at once, and no more than a batch are in memory.

    The answer about a picture that cannot be read, which the reader reports, is empty and has no score.
    """
    answers = [Answer("")] * len(table)
    rows_of: dict[str, list[int]] = {}
    for number, each in enumerate(table):
        rows_of.setdefault(each.image, []).append(number)
    for names, pictures in reader:
        asked = [(number, place) for place, name in enumerate(names) for number in rows_of[name]]
        questions = [table[number].question for number, _ in asked]
        found = adapter.answer(adapter.look(pictures), questions, [place for _, place in asked])
        for (number, _), answer in zip(asked, found):
            answers[number] = answer
    return answers


def with_answer(row: Mapping[str, Any], answer: Answer, names: tuple[str, str]) -> dict[str, Any]:
    score = None if answer.score is None else round(answer.score, 4)
    return {**row, names[0]: answer.text, names[1]: score}


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as CSV, with all columns that any of them has; values of JSON lines that are no texts, as JSON."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: cell(value) for name, value in row.items()})
    return buffer.getvalue()


def cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def as_json_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
