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


QUESTIONS = Kind("questions", "questions", {"question_id": int, "image_id": int, "question": str})
ANNOTATED_ANSWERS = Kind(
    "annotations with answers",
    "annotations",
    {"question_id": int, "image_id": int, "question_type": str, "answer_type": str, "answers": list},
)
PREDICTED_ANSWERS = Kind("predicted answers", None, {"question_id": int, "answer": str})
VISUAL_GENOME = Kind("questions and answers of Visual Genome", None, {"id": int, "qas": list})
PREDICTED_CAPTIONS = Kind("predicted captions", None, {"image_id": int, "caption": str})
ANNOTATED_CAPTIONS = Kind("captions by people", "annotations", {"image_id": int, "caption": str})
KARPATHY_CAPTIONS = Kind(
    "captions with Karpathy's splits", "images", {"split": str, "filename": str, "sentences": list}
)
KNOWN_KINDS = (
    QUESTIONS,
    ANNOTATED_ANSWERS,
    PREDICTED_ANSWERS,
    VISUAL_GENOME,
    PREDICTED_CAPTIONS,
    ANNOTATED_CAPTIONS,
    KARPATHY_CAPTIONS,
)


def take_entries(content: Any, path: Path, kind: Kind) -> list[Any]:
    """Take the list of entries out of what a file holds, unchecked; stop if it is a file of another kind.

    Raises:
        EvaluationError: with the kind that the file is of, if it is a known one.
    """
    entries = kind.entries(content)
    known = next((each for each in (kind, *KNOWN_KINDS) if each.fits(content)), None)
    if entries is None or known not in (kind, None):
        raise EvaluationError(f"{path} holds {known.name if known else describe(content)}; give {kind}.")
    return entries


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


def refuse_other_split(
    ours: Mapping[int, Any],
    our_name: str | Path,
    annotations: Mapping[int, Any],
    annotations_name: str | Path,
    one: str = "question",
):
    """Stop if two files have no id in common."""
    if not ours.keys() & annotations.keys():
        first, second = (name_ids(list(ids)[:1], one) if ids else f"no {one}" for ids in (ours, annotations))
        raise EvaluationError(
            f"{our_name} (with {first}, for one) and {annotations_name} (with {second}) have no {one} in common; "
            "give files of the same split."
        )


def has_text(entry: Any, field: str) -> bool:
    """Tell whether an entry is an object with a text in this field."""
    return isinstance(entry, dict) and isinstance(entry.get(field), str)


def number_objects(entries: Sequence[Any], path: str | Path) -> dict[int, dict[str, Any]]:
    """Give entries by their numbers, from 1; stop at those that are no objects."""
    wrong = [place for place, entry in enumerate(entries, 1) if not isinstance(entry, dict)]
    refuse(wrong, path, 'there is no object {"...": ...} in', "write one or take it out", "entry", "entries")
    return dict(enumerate(entries, 1))


def check_field(
    rows: Mapping[int, dict[str, Any]],
    field: str,
    wanted: type,
    path: str | Path,
    one: str = "question",
    several: str = "questions",
):
    """Stop at rows that lack a field or have it with another type; `true` is no number."""
    missing = [number for number, row in rows.items() if field not in row]
    refuse(missing, path, f"'{field}' is missing in", "write it", one, several)
    wrong = [number for number, row in rows.items() if type(row[field]) is not wanted]
    shown = show_json(rows[wrong[0]][field]) if wrong else ""
    refuse(wrong, path, f"'{field}' is {shown} in", f"write {TYPE_NAMES[wanted]}", one, several)


def index_entries(
    entries: Sequence[Any],
    path: str | Path,
    kind: Kind,
    id_field: str = "question_id",
    one: str = "question",
    several: str = "questions",
) -> dict[int, dict[str, Any]]:
    """Give entries by their ids; stop at what is missing, of another type, or there twice.

    Args:
        path: the file, or a place in it: '"images" of val.json'.
        id_field: where the ids stand, which are those of `several`.

    Raises:
        EvaluationError: with the ids at fault, or the numbers of entries that have none.
    """
    if not entries:
        raise EvaluationError(f"{path} holds no {kind.name}, only an empty list; give {kind}.")
    return index_rows(number_objects(entries, path), path, kind, id_field, one, several)


def index_rows(
    numbered: Mapping[int, dict[str, Any]], path: str | Path, kind: Kind, id_field: str, one: str, several: str
) -> dict[int, dict[str, Any]]:
    """Give objects by their ids as [`index_entries`] does, with their numbers in the file for its messages."""
    check_field(numbered, id_field, int, path, "entry", "entries")
    repeated = [id for id, count in Counter(row[id_field] for row in numbered.values()).items() if count > 1]
    refuse(repeated, path, "there is more than one entry for", "keep one of each", one, several)
    rows = {row[id_field]: row for row in numbered.values()}
    for field, wanted in kind.fields.items():
        check_field(rows, field, wanted, path, one, several)
    return rows
