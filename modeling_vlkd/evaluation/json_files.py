"""Read and write whole JSON files of data sets and results, and say in one line what is wrong with one."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import EvaluationError


MOST_IDS = 5  # in one message


def name_ids(ids: Iterable[Any], one: str = "question", several: str = "questions") -> str:
    """Name at most five ids and count the others: "question 7", "questions 1, 2, 3, 4, 5 and 12 more"."""
    ids = list(ids)
    named = ", ".join(map(str, ids[:MOST_IDS]))
    more = f" and {len(ids) - MOST_IDS:,} more" if len(ids) > MOST_IDS else ""
    return f"{one if len(ids) == 1 else several} {named}{more}"


def show_json(value: Any) -> str:
    """Write a value as it stands in a file, on one line and not longer than 40 characters."""
    return f"{json.dumps(value, default=repr):.40}"


def read_json_file(path: Path, remedy: str) -> Any:
    """Read a file that is one JSON value.

    Args:
        remedy: what to do about a file that cannot be read, for the message: "give a list of results".

    Raises:
        EvaluationError: there is no such file, or it is a folder, empty, not UTF-8 or not JSON, with the line.
    """
    text = read_text(path, remedy)
    if not text.strip():
        raise EvaluationError(f"{path} is empty; {remedy}.")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if is_cut_off(text, error):
            last = text.rstrip().count("\n") + 1
            raise EvaluationError(f"{path} ends in the middle of its line {last}; write or fetch it again.") from error
        raise EvaluationError(f"Line {error.lineno} of {path} is no JSON ({error.msg}); {remedy}.") from error
    except (RecursionError, ValueError) as error:  # lists within lists within lists; a number of thousands of digits
        raise EvaluationError(f"{path} is nested too deeply or has too long a number; {remedy}.") from error


def read_text(path: Path, remedy: str) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise EvaluationError(f"{path} does not exist; {remedy}.") from error
    except IsADirectoryError as error:
        raise EvaluationError(f"{path} is a folder; {remedy}.") from error
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read ({error.strerror}); {remedy}.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise EvaluationError(
            f"Line {line} of {path} is not UTF-8 ({error.reason}); save the file again as UTF-8."
        ) from error


def is_cut_off(text: str, error: json.JSONDecodeError) -> bool:
    """Tell whether a file ends where more of it was expected, as one whose writing or download broke off."""
    return error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip())


def write_json_file(path: Path, value: Any, indent: int | None = None):
    """Write a value as JSON, as [`write_text_file`] writes.

    Args:
        indent: of a file that people read; by default all is on one line.
    """
    write_text_file(path, json.dumps(value, indent=indent) + "\n")


def write_text_file(path: Path, text: str):
    """Write a file completely or, if that fails, not at all: then what stood there before stays.

    Raises:
        EvaluationError: it cannot be written there.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise EvaluationError(
            f"{path} cannot be written ({error.strerror}), and nothing was changed; make its folder or room in it, or "
            "give another name."
        ) from error
