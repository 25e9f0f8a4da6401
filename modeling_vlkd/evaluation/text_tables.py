"""Read tables of texts from wherever people keep them: CSV, JSON lines, parquet, folders of `datasets`, the Hub."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets

from .errors import EvaluationError
from .tables import read_table, refuse_missing_columns


TRAIN, DEV, TEST = "train", "validation", "test"  # splits, as `datasets` calls them
SAVED_TABLE = "state.json"  # in a folder that `datasets` has saved, of a table without splits
KINDS = "a .csv, .jsonl or .parquet file, a folder that `datasets` has saved, or a Hub id, USER/NAME"


def read_texts(
    source: str | Path, columns: Sequence[str], split: str, hub_config: str | None = None, part: str = ""
) -> list[tuple[str, dict[str, Any]]]:
    """Read a table, and give each row with the place that messages call it by.

    Args:
        columns: those that have to be there; others are given, too.
        split: of a source that has several.
        hub_config: configuration to take of a data set on the Hub that has one of this name.
        part: of a source that has its splits in parts, as `validation_matched`.

    Raises:
        EvaluationError: there is no such source, split or column, no row, or a row that cannot be read.
    """
    path = Path(source)
    try:
        if path.is_file() and path.suffix in (".csv", ".jsonl", ".json"):
            rows = [(f"Line {line} of {path}", row) for line, row in read_table(path, columns)]
        else:
            rows = _read_dataset(str(source), columns, [f"{split}_{part}", split] if part else [split], hub_config)
    except EvaluationError:
        raise
    except ValueError as error:  # of `tables`
        raise EvaluationError(str(error)) from error
    if not rows:
        raise EvaluationError(f"{source} holds no rows; give a table with the columns {', '.join(columns)}.")
    return rows


def refuse_split_of_one_table(path: Path, split: str, default: str):
    """Stop where a split is asked of a file, or of a saved folder, that is one table.

    Args:
        default: the split that is read where nobody asks for one; it may be asked for.

    Raises:
        EvaluationError: it is another one.
    """
    if split != default and (path.is_file() or (path / SAVED_TABLE).is_file()):
        raise EvaluationError(f"{path} is one table, which has no split {split!r}; give the table of that split.")


def _read_dataset(
    source: str, columns: Sequence[str], splits: Sequence[str], hub_config: str | None
) -> list[tuple[str, dict[str, Any]]]:
    opened = open_dataset(source, hub_config)
    if isinstance(opened, datasets.DatasetDict):
        if len(opened) == 1 and Path(source).is_file():
            splits = list(opened)
        found = next((split for split in splits if split in opened), None)
        if found is None:
            raise EvaluationError(f"{source} has no split {splits[-1]!r}; it has {', '.join(opened)}.")
        opened = opened[found]
    refuse_missing_columns(columns, opened.column_names, source)
    return [(f"Row {number} of {source}", dict(row)) for number, row in enumerate(opened)]


def open_dataset(source: str, hub_config: str | None) -> datasets.Dataset | datasets.DatasetDict:
    """Open what `datasets` can read.

    Its errors are of many kinds, and some are logged as well as raised: one line is made of each.

    Raises:
        EvaluationError: it cannot.
    """
    path = Path(source)
    if path.is_file() and path.suffix != ".parquet":
        raise EvaluationError(f"{source} is of no known kind; give {KINDS}.")
    if not path.exists() and (source.startswith((".", "/", "~")) or source.count("/") != 1 or source.endswith("/")):
        raise EvaluationError(f"{source} does not exist; give {KINDS}.")
    log = logging.getLogger("datasets.packaged_modules")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        if path.is_file():
            return datasets.load_dataset("parquet", data_files=source)
        if (path / SAVED_TABLE).is_file() or (path / "dataset_dict.json").is_file():
            return datasets.load_from_disk(source)
        if path.is_dir():
            return datasets.load_dataset(source)
        known = datasets.get_dataset_config_names(source)
        return datasets.load_dataset(source, hub_config if hub_config in known else None)
    except (ValueError, OSError, LookupError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error.__cause__ or error).split()).rstrip(".")
        raise EvaluationError(f"{source} cannot be read ({reason}); give {KINDS}.") from error
    finally:
        log.setLevel(level)
