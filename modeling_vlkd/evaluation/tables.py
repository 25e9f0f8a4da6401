"""Read tables of texts that somebody wrote, CSV and JSON lines, and say what is wrong with one and where."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO


def refuse_other_encodings(path: Path):
    """Stop at the first line that is not UTF-8.

    Raises:
        ValueError: there is one, as in the tables that some spreadsheets write.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"Line {number} of {path} is not UTF-8 ({error.reason}); save the file again as UTF-8."
                ) from error


def describe_columns(names: Sequence[str]) -> str:
    """List the columns of a table, and say which separator they seem to have if it is no comma."""
    if len(names) == 1:
        for separator, shown in ((";", "';'"), ("\t", "tabs"), ("|", "'|'")):
            if separator in names[0]:
                columns = ", ".join(name.strip() for name in names[0].split(separator))
                return f"{columns}, separated by {shown}: separate them by commas"
    return ", ".join(names) or "none"


def refuse_missing_columns(wanted: Sequence[str], names: Sequence[str], where: str):
    """Stop at a column that a table lacks, and tell which it has."""
    if missing := [name for name in wanted if name not in names]:
        raise ValueError(f"{where} has no column {missing[0]!r}; it has {describe_columns(names)}.")


def read_csv(file: TextIO, path: Path, wanted: Sequence[str]) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Give each row with the number of its (last) line."""
    reader = csv.DictReader(file, strict=True)
    try:
        if reader.fieldnames is not None:
            refuse_missing_columns(wanted, reader.fieldnames, str(path))
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


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give each row of a CSV or JSON-lines file with the number of its line; all columns of the file are kept.

    It is not read by `datasets`, to which the texts "None" and "NA" are no text, and "007" is a number.

    Args:
        columns: those that every row must have.

    Raises:
        FileNotFoundError, ValueError: no such file or column, or a line that cannot be read, by its number.
    """
    names = ", ".join(columns)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a CSV or JSON-lines file with {names}.")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a CSV or JSON-lines file with {names}.")
    if path.suffix not in (".csv", ".jsonl", ".json"):
        raise ValueError(f"{path} is neither .csv nor .jsonl; give a file with the columns {names}.")
    refuse_other_encodings(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        for line, row in read_csv(file, path, columns) if path.suffix == ".csv" else read_json(file, path):
            refuse_missing_columns(columns, list(row), f"Line {line} of {path}")
            yield line, row


def filled_fields(row: Mapping[str, Any], columns: Sequence[str], place: str) -> dict[str, str]:
    """Take columns of a row as texts without outer spaces, and stop at an empty one."""
    fields = {name: "" if row[name] is None else str(row[name]).strip() for name in columns}
    if empty := [name for name, value in fields.items() if not value]:
        raise ValueError(f"{place} has an empty {empty[0]}; fill it in or leave it out.")
    return fields
