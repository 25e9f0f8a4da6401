"""Check the entries of JSON files of data sets and results: what a file holds, and which entries are wrong in it."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import EvaluationError
from .json_files import name_ids, show_json


TYPE_NAMES = {int: "a whole number without quotes", str: "a text in quotes", list: "a list"}


@dataclass(frozen=True)
class Kind:
    """What a file may hold.

    Args:
        name: in the plural, for messages.
        key: under which the list of entries stands; None if the file is that list.
        fields: of each entry, with their types.
    """

    name: str
    key: str | None
    fields: dict[str, type]

    def __str__(self) -> str:
        entries = "[{" + ", ".join(f'"{field}": ...' for field in self.fields) + "}, ...]"
        return f"{self.name} as " + (f'{{"{self.key}": {entries}}}' if self.key else entries)

    def entries(self, content: Any) -> list[Any] | None:
        """Take the list of entries out of what a file holds; None if there is none at its place."""
        if self.key is not None:
            content = content.get(self.key) if isinstance(content, dict) else None
        return content if isinstance(content, list) else None

    def fits(self, content: Any) -> bool:
        """Tell whether a file is of this kind, by its first entry."""
        first = (self.entries(content) or [None])[0]
        return isinstance(first, dict) and self.fields.keys() <= first.keys()


def describe(content: Any) -> str:
    """Say what a file holds that is of no known kind."""
    if isinstance(content, dict) and content:
        return f"an object with {name_ids(map(show_json, content), 'the key', 'the keys')}"
    return "a list of other entries" if isinstance(content, list) and content else show_json(content)


def refuse(
    ids: Collection[Any], where: str | Path, fault: str, remedy: str, one: str = "question", several: str = "questions"
):
    """Stop if there are ids of entries with a fault.

    Raises:
        EvaluationError: "results.json: 'answer' is missing in questions 1, 2; write it."
    """
    if ids:
        raise EvaluationError(f"{where}: {fault} {name_ids(ids, one, several)}; {remedy}.")


def number_objects(entries: Sequence[Any], path: Path) -> dict[int, dict[str, Any]]:
    """Give entries by their numbers, from 1; stop at those that are no objects."""
    wrong = [place for place, entry in enumerate(entries, 1) if not isinstance(entry, dict)]
    refuse(wrong, path, 'there is no object {"...": ...} in', "write one or take it out", "entry", "entries")
    return dict(enumerate(entries, 1))


def check_field(
    rows: Mapping[int, dict[str, Any]],
    field: str,
    wanted: type,
    path: Path,
    one: str = "question",
    several: str = "questions",
):
    """Stop at rows that lack a field or have it with another type; `true` is no number."""
    missing = [number for number, row in rows.items() if field not in row]
    refuse(missing, path, f"'{field}' is missing in", "write it", one, several)
    wrong = [number for number, row in rows.items() if type(row[field]) is not wanted]
    shown = show_json(rows[wrong[0]][field]) if wrong else ""
    refuse(wrong, path, f"'{field}' is {shown} in", f"write {TYPE_NAMES[wanted]}", one, several)


def index_entries(entries: Sequence[Any], path: Path, kind: Kind) -> dict[int, dict[str, Any]]:
    """Give entries by their `question_id`; stop at what is missing, of another type, or there twice.

    Raises:
        EvaluationError: with the ids of the questions, or the numbers of entries that have none.
    """
    if not entries:
        raise EvaluationError(f"{path} holds no {kind.name}, only an empty list; give {kind}.")
    check_field(number_objects(entries, path), "question_id", int, path, "entry", "entries")
    repeated = [number for number, count in Counter(entry["question_id"] for entry in entries).items() if count > 1]
    refuse(repeated, path, "there is more than one entry for", "keep one of each")
    rows = {entry["question_id"]: entry for entry in entries}
    for field, wanted in kind.fields.items():
        check_field(rows, field, wanted, path)
    return rows
