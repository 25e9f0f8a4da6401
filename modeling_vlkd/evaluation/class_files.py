"""Files of zero-shot classification: names of classes, templates of their prompts, and pictures with their labels.

A label is what the data call a class, such as "n01440764", and its name what a prompt says, such as "tench"; often
both are the same.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import EvaluationError
from .json_entries import refuse
from .json_files import name_ids, read_json_file, read_text
from .picture_files import PICTURE_SUFFIXES
from .tables import read_csv, read_json, refuse_missing_columns, refuse_other_encodings


IMAGENET = "imagenet"  # the 1,000 names that CLIP was evaluated with
TEMPLATE_SETS = ("openai", "simple")  # the 80 templates of that evaluation, and 7 that do nearly as well
PLAIN_TEMPLATE = "a photo of a {}."
CLASSES, PICTURES, TEMPLATES = ("class", "classes"), ("picture", "pictures"), ("template", "templates")
COLUMNS = ("image", "label")


@dataclass(frozen=True)
class LabeledPictures:
    """Pictures and what they show.

    Args:
        ids: all different: where the picture lies in its folder, or what the table calls it.
        source: what messages call them: their folder or table.
    """

    ids: Sequence[str]
    paths: Sequence[Path]
    labels: Sequence[str]
    source: str


def read_class_folder(folder: str | Path) -> LabeledPictures:
    """List a folder of pictures that has one subfolder a class, whose name is the label.

    Raises:
        EvaluationError: there is no such folder, it has no subfolders, or there are no pictures below one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise EvaluationError(f"There is no folder {folder}; give one with a subfolder of pictures for each class.")
    subfolders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {
        subfolder.name: sorted(path for path in subfolder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
        for subfolder in subfolders
    }
    if not found:
        raise EvaluationError(f"{folder} has no subfolders; put the pictures of each class into one of its name.")
    empty = [label for label, paths in found.items() if not paths]
    refuse(empty, folder, "there are no pictures of", "add some, or take the folder out", *CLASSES)
    paths = [path for each in found.values() for path in each]
    labels = [label for label, each in found.items() for _ in each]
    return LabeledPictures([path.relative_to(folder).as_posix() for path in paths], paths, labels, str(folder))


def read_label_table(path: str | Path, pictures: str | Path) -> LabeledPictures:
    """Read a CSV or JSON-lines file with the columns `image`, a path, and `label`.

    Args:
        pictures: the folder to which the paths are relative.

    Raises:
        EvaluationError: the file is no such table, names a picture twice, or one that is not there; with the names.
    """
    path = Path(path)
    if not path.is_file():
        raise EvaluationError(f"{path} does not exist; give a table of pictures with the columns image and label.")
    try:
        rows = read_label_rows(path)
    except ValueError as error:  # of tables
        raise EvaluationError(str(error)) from error
    if not rows:
        raise EvaluationError(f"{path} has no rows; give one for each picture, with its image and its label.")
    ids, folder = [image for image, _ in rows], Path(pictures)
    repeated = [image for image, count in Counter(ids).items() if count > 1]
    refuse(repeated, path, "there is more than one row of", "keep one of each", *PICTURES)
    paths = [folder / image for image in ids]
    missing = [image for image, file in zip(ids, paths) if not file.is_file()]
    refuse(missing, path, f"{folder} does not have", "mend the names or the folder", *PICTURES)
    return LabeledPictures(ids, paths, [label for _, label in rows], str(path))


def read_label_rows(path: Path) -> list[tuple[str, str]]:
    """Read the image and the label of each row; a label may be a number."""
    refuse_other_encodings(path)
    is_csv = path.suffix.lower() == ".csv"
    rows = []
    with path.open(encoding="utf-8-sig", newline="" if is_csv else None) as file:
        numbered = read_csv(file, path, COLUMNS) if is_csv else read_json(file, path)
        for number, row in numbered:
            refuse_missing_columns(COLUMNS, list(row), f"Line {number} of {path}")
            values = [str(row[name]).strip() for name in COLUMNS if isinstance(row[name], str | int)]
            if len(values) != len(COLUMNS) or not all(values):
                raise ValueError(f"Line {number} of {path} lacks an image or a label; write both as texts.")
            rows.append((values[0], values[1]))
    return rows


def read_classes(source: str | Path, labels: Sequence[str]) -> dict[str, str]:
    """Read the names of classes by their labels.

    A text file has one name a line, a JSON file a list of names, which then are the labels too, or an object
    `{"n01440764": "tench", ...}`. "imagenet" stands for the 1,000 names that CLIP was evaluated with, of the labels in
    alphabetical order, as ImageNet's folders are numbered.

    Args:
        labels: of the data.

    Raises:
        EvaluationError: the file cannot be read or holds something else, a name is empty, or there twice.
    """
    if source == IMAGENET:
        return name_imagenet(labels)
    path = Path(source)
    content: Any
    if path.suffix.lower() == ".json":
        content = read_json_file(path, 'give ["tench", ...] or {"n01440764": "tench", ...}')
    else:
        content = [line for line in read_text(path, "give names of classes, one a line").splitlines() if line.strip()]
    pairs = list(content.items()) if isinstance(content, dict) else [(each, each) for each in as_list(content)]
    if not pairs or not all(isinstance(name, str) and name.strip() for _, name in pairs):
        raise EvaluationError(f'{path} holds no names of classes; give ["tench", ...], or one name a line.')
    names = [name.strip() for _, name in pairs]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    refuse(repeated, path, "there is more than one of", "give each a name of its own", *CLASSES)
    return {label.strip(): name for (label, _), name in zip(pairs, names)}


def as_list(content: Any) -> list[Any]:
    return content if isinstance(content, list) else []


def name_imagenet(labels: Sequence[str]) -> dict[str, str]:
    """Name the folders of ImageNet, which stand in the order of their classes when sorted."""
    import open_clip  # takes seconds

    known, names = sorted(set(labels)), open_clip.IMAGENET_CLASSNAMES
    if len(known) != len(names):
        raise EvaluationError(
            f"The pictures have {len(known):,} labels, and ImageNet {len(names):,}; give a file of classes instead."
        )
    return dict(zip(known, names))


def read_templates(source: str | Path | None = None) -> list[str]:
    """Read templates of prompts, in which `{}` stands for the name of a class.

    Args:
        source: a text file with one a line, or a JSON list of them; "openai" for the 80 of CLIP's evaluation on
            ImageNet, "simple" for 7 of these; None for "a photo of a {}." alone.

    Raises:
        EvaluationError: the file cannot be read, or a template has no `{}`.
    """
    if source is None:
        return [PLAIN_TEMPLATE]
    if source in TEMPLATE_SETS:
        import open_clip  # takes seconds

        chosen = open_clip.OPENAI_IMAGENET_TEMPLATES if source == "openai" else open_clip.SIMPLE_IMAGENET_TEMPLATES
        return [template("{}") for template in chosen]  # functions of the name
    path = Path(source)
    if path.suffix.lower() == ".json":
        templates = as_list(read_json_file(path, f'give ["{PLAIN_TEMPLATE}", ...]'))
    else:
        remedy = f"give templates, one a line, or one of {' and '.join(TEMPLATE_SETS)}"
        templates = [line.strip() for line in read_text(path, remedy).splitlines() if line.strip()]
    if not templates:
        raise EvaluationError(f'{path} holds no templates; give such as "{PLAIN_TEMPLATE}", one a line.')
    wrong = [repr(each) for each in templates if not isinstance(each, str) or "{}" not in each]
    refuse(wrong, path, "there is no {}, the place of the class, in", "write it", *TEMPLATES)
    return templates


def check_classes(pictures: LabeledPictures, classes: dict[str, str]):
    """Stop at labels that are no classes, and at classes without pictures.

    Raises:
        EvaluationError: with their names.
    """
    labels = set(pictures.labels)
    if unknown := [label for label in dict.fromkeys(pictures.labels) if label not in classes]:
        known = name_ids(classes, "the class", "the classes")
        raise EvaluationError(
            f"{pictures.source}: there are pictures of {name_ids(map(repr, unknown), 'the label', 'the labels')}, "
            f"which {'is no class' if len(unknown) == 1 else 'are no classes'} among {known}; mend the labels or the "
            "classes."
        )
    without = [label for label in classes if label not in labels]
    refuse(without, pictures.source, "there are no pictures of", "add some, or take these classes out", *CLASSES)
