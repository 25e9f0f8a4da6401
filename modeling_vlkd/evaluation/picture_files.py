"""Find the pictures of data sets whose files tell only ids or names, as those of COCO, VQAv2 and Visual Genome do."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from .errors import EvaluationError
from .json_files import name_ids


PICTURE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
LAST_NUMBER = re.compile(r"(\d+)$")  # "COCO_val2014_000000000042" is of picture 42


def find_picture_files(
    folder: str | Path, image_ids: Iterable[int], file_names: Mapping[int, str] | None = None
) -> dict[int, Path]:
    """Find the file of each picture in a folder or below it.

    A picture whose file name is known is that file. Any other is the one whose name ends in its id, as
    `COCO_val2014_000000000042.jpg` and `42.jpg` do.

    Args:
        file_names: by image id, with folders in them or without.

    Raises:
        EvaluationError: there is no such folder; pictures are not in it, or more than one file may be meant; with ids.
    """
    folder, names = Path(folder), file_names or {}
    if not folder.is_dir():
        raise EvaluationError(f"There is no folder {folder}; give the one with the pictures.")
    by_name, by_number = list_pictures(folder)
    found: dict[int, Path] = {}
    missing: list[int] = []
    unclear: list[int] = []
    for image in dict.fromkeys(image_ids):
        name = names.get(image)
        if name is not None and (folder / name).is_file():
            candidates = [folder / name]
        else:
            candidates = by_number.get(image, []) if name is None else by_name.get(Path(name).name, [])
        if len(candidates) == 1:
            found[image] = candidates[0]
        else:
            (unclear if candidates else missing).append(image)
    if missing:
        lost = [f"{image} ({names[image]})" if image in names else image for image in missing]
        raise EvaluationError(
            f"{folder} has no file of {name_ids(lost, 'picture', 'pictures')}; give the folder of their split."
        )
    if unclear:
        raise EvaluationError(
            f"{folder} has more than one file of {name_ids(unclear, 'picture', 'pictures')}; give that of one split."
        )
    return found


def list_pictures(folder: Path) -> tuple[dict[str, list[Path]], dict[int, list[Path]]]:
    """List the picture files below a folder: by their names, and by the numbers in which their names end."""
    by_name: dict[str, list[Path]] = defaultdict(list)
    by_number: dict[int, list[Path]] = defaultdict(list)
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() not in PICTURE_SUFFIXES:
                continue
            path = Path(parent, name)
            by_name[name].append(path)
            if number := LAST_NUMBER.search(stem):
                by_number[int(number[1])].append(path)
    return by_name, by_number
