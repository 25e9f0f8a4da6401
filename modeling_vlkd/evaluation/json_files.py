"""Read and write whole JSON files, and say in one line what is wrong with one."""

import json
from pathlib import Path
from typing import Any

from .errors import EvaluationError


KINDS: dict[type, str] = {int: "an integer", str: "a text", list: "a list", dict: "an object"}


def read_json_file(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        EvaluationError: there is no such file, it is a folder, it is not UTF-8 or no JSON, with the line.
    """
    path = Path(path)
    if path.is_dir():
        raise EvaluationError(f"{path} is a folder; give a JSON file.")
    if not path.exists():
        raise EvaluationError(f"{path} does not exist; give a JSON file.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read ({error.strerror}); give a JSON file.") from error
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise EvaluationError(
            f"Line {line} of {path} is not UTF-8 ({error.reason}); save it again as UTF-8."
        ) from error
    except json.JSONDecodeError as error:
        raise EvaluationError(
            f"Line {error.lineno} of {path} is no JSON ({error.msg}, column {error.colno}); {remedy(error)}."
        ) from error
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits, thousands of brackets
        raise EvaluationError(f"{path} cannot be read as JSON ({error}); write it again.") from error


def remedy(error: json.JSONDecodeError) -> str:
    """Guess from where parsing stopped what happened to a file."""
    if not error.doc.strip():
        return "the file is empty: write it again"
    if error.msg == "Extra data":
        return "a file holds one JSON value, not one a line"
    if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string"):
        return "the file seems half-written: write it again"
    return "mend this line, or write the file again"


def write_json_file(path: str | Path, content: Any):
    """Write a JSON file whole or not at all: under another name first, in the same folder.

    Raises:
        EvaluationError: the file cannot be written; one that was there before is as it was.
    """
    path = Path(path)
    if path.is_dir():
        raise EvaluationError(f"{path} is a folder; give the name of a JSON file.")
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise EvaluationError(
            f"{path} cannot be written ({error.strerror}); make its folder, or room in it."
        ) from error
    finally:
        partial.unlink(missing_ok=True)  # the rest of what could not be written whole


def take(entry: Any, name: str, kind: type, where: str) -> Any:
    """Take a field of an object of a JSON file, and check its type.

    Args:
        where: names the object, with its file: "Result 3 of results.json".

    Raises:
        EvaluationError: there is no such field, or it is of another type; true and false are no integers.
    """
    if not isinstance(entry, dict):
        raise EvaluationError(f"{where} is not an object but {shown(entry)}; it needs {name!r}.")
    if name not in entry:
        raise EvaluationError(f"{where} has no {name!r} but {shown(list(entry))}; add it, or give another file.")
    if type(entry[name]) is not kind:
        raise EvaluationError(f"{where} has {shown(entry[name])} as {name!r}; make it {KINDS[kind]}.")
    return entry[name]


def shown(value: Any) -> str:
    """Show the beginning of a value as JSON, in one line."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
