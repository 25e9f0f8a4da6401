"""Image-caption data sets, read by `datasets`: folders of pictures, parquet, saved data sets, Hub ids."""

import csv
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from modeling_vlkd.evaluation.decoding import MOST_PICTURES
from modeling_vlkd.evaluation.tables import describe_columns, refuse_other_encodings
from modeling_vlkd.processing_vlkd import open_image


METADATA = {"metadata.csv", "metadata.jsonl", "metadata.parquet"}  # beside pictures, as `datasets` names them
WHOLE_TABLE = "it needs the columns file_name and, say, caption, and quotes around a caption with a comma in it"
WHOLE_PARQUET = "give whole parquet files"
IMAGE_COLUMNS = ("image", "img", "jpg", "png", "image_path", "file_name")
ROWS_OF_A_TRAINED_TOWER = (
    "`freeze_vision_tower=False` trains the vision tower, but stored image rows (`image_embeds`) do not go "
    "through it: keep the pictures with `keep_pixels` (examples with `image` or `pixel_values`), or freeze the tower."
)
SHARE_HELD_BACK = 0.05
CAPTION_COLUMNS = ("caption", "captions", "text", "sentence", "sentences", "sentences_raw", "txt")


def load_captioned_images(
    source: str | Path, split: str = "train", image_column: str | None = None, caption_column: str | None = None
) -> datasets.Dataset:
    """Load pictures with their captions.

    Args:
        source: a folder of pictures with a `metadata.csv`, `metadata.jsonl` or `metadata.parquet` (columns `file_name`
            and, say, `caption`); a parquet file, or a folder of them; what `save_to_disk` wrote; or a Hub id.
        image_column, caption_column: found by type and name if not given. Captions may be one or a list a picture.

    Returns:
        One row a picture: `image`, not decoded, and `captions`, a list of strings.

    Raises:
        FileNotFoundError, ValueError: there is no such data set, no such column, or an empty caption, by row.
    """
    dataset = _choose_split(_open(str(source)), split, source)
    image_column = image_column or _find_image_column(dataset, source)
    caption_column = caption_column or _find_caption_column(dataset, source, image_column)
    for column in (image_column, caption_column):
        if column not in dataset.column_names:
            raise ValueError(f"{source} has no column {column!r}; it has {', '.join(dataset.column_names)}.")
    if not len(dataset):
        raise ValueError(f"{source} has no rows in its split {split!r}.")
    if isinstance(dataset.features[image_column], datasets.Image):
        dataset = dataset.cast_column(image_column, datasets.Image(decode=False))
    values, feature = dataset[caption_column], dataset.features[caption_column]
    if isinstance(feature, datasets.ClassLabel):  # whose numbers stand for names
        values = [None if value is None else feature.names[value] for value in values]
    captions = [_as_captions(value, row, source) for row, value in enumerate(values)]
    # If the user named a column of texts as that of the images, its rows are no pictures of the folder.
    if dataset.info.builder_name == "imagefolder" and isinstance(dataset.features[image_column], datasets.Image):
        dataset, captions = _merge_rows_of_a_picture(dataset, image_column, captions)
    images = dataset.select_columns([image_column]).rename_columns({image_column: "image"})
    return images.add_column("captions", captions)


def _open(source: str) -> datasets.Dataset | datasets.DatasetDict:
    path = Path(source)
    if path.is_file():
        if path.suffix != ".parquet":
            raise ValueError(f"{source} is neither a folder nor a parquet file; give one of them, or a Hub id.")
        return _read(source, WHOLE_PARQUET, "parquet", data_files=source)
    if not path.is_dir():
        if source.startswith((".", "/", "~")) or source.endswith("/") or source.count("/") != 1:
            raise FileNotFoundError(f"{source} does not exist; give a folder, a parquet file or a Hub id, USER/NAME.")
        return _read(source, "it is no folder here, and so was looked for on the Hub", source)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return datasets.load_from_disk(source)
    tables = {file for pattern in ("*.parquet", "metadata.*") for file in path.rglob(pattern)}
    captions = sorted(str(file) for file in tables if file.name in METADATA)
    if tables and not captions:
        return _read(source, WHOLE_PARQUET, "parquet", data_dir=source)
    if not captions:
        raise ValueError(
            f"{source} has no captions: put a metadata.csv with the columns file_name and caption beside the pictures."
        )
    try:
        return _read(" or ".join(captions), WHOLE_TABLE, "imagefolder", data_dir=source)
    except ValueError:
        for table in captions:
            _refuse_faulty_table(Path(table))
        raise


def _read(name: str, remedy: str, *args: str, **kwargs: str) -> datasets.DatasetDict:
    """Call `load_dataset`, and make one line with the name of the file of whatever goes wrong in it.

    Its errors are of many kinds, name no file, and some of them are logged as well as raised.
    """
    log = logging.getLogger("datasets.packaged_modules")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        return datasets.load_dataset(*args, **kwargs)
    except (ValueError, OSError, LookupError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error.__cause__ or error).split()).rstrip(".")
        raise ValueError(f"{name} cannot be read ({reason}); {remedy}.") from error
    finally:
        log.setLevel(level)


def _refuse_faulty_table(path: Path):
    """Stop with what `datasets` does not tell: which line is not UTF-8, or which columns a table has instead."""
    if path.suffix == ".parquet":
        return
    refuse_other_encodings(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            names = next(csv.reader(file), []) if path.suffix == ".csv" else list(json.loads(file.readline()))
            has_rows = path.suffix != ".csv" or any(line.strip() for line in file)
        except (csv.Error, ValueError, TypeError):
            return
    if names and not any(name == "file_name" or name.endswith("_file_name") for name in map(str, names)):
        columns = describe_columns(list(map(str, names)))
        raise ValueError(f"{path} has no column 'file_name'; it has {columns}; {WHOLE_TABLE}.")
    if names and not has_rows:
        raise ValueError(f"{path} names no pictures: it ends after its first line.")


def _choose_split(
    dataset: datasets.Dataset | datasets.DatasetDict, split: str, source: str | Path
) -> datasets.Dataset:
    if isinstance(dataset, datasets.Dataset):
        return dataset
    if split not in dataset:
        raise ValueError(f"{source} has no split {split!r}; it has {', '.join(dataset)}.")
    return dataset[split]


def _find_image_column(dataset: datasets.Dataset, source: str | Path) -> str:
    typed = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    named = [name for name in IMAGE_COLUMNS if name in dataset.column_names]
    if not typed + named:
        raise ValueError(
            f"{source} has no column of images among {', '.join(dataset.column_names)}; name it with `image_column`."
        )
    return (typed + named)[0]


def _find_caption_column(dataset: datasets.Dataset, source: str | Path, image_column: str) -> str:
    named = [name for name in CAPTION_COLUMNS if name in dataset.column_names]
    texts = [
        name
        for name, feature in dataset.features.items()
        if name != image_column and feature in (datasets.Value("string"), datasets.List(datasets.Value("string")))
    ]
    if not named and len(texts) != 1:
        raise ValueError(
            f"{source} has no column that is clearly of captions among {', '.join(dataset.column_names)}; "
            "name it with `caption_column`."
        )
    return (named + texts)[0]


def _as_captions(value: Any, row: int, source: str | Path) -> list[str]:
    captions = value if isinstance(value, list) else [value]
    # `datasets` reads captions such as 1984 as numbers, and an empty cell among them as NaN.
    captions = [str(each) if isinstance(each, int | float) and each == each else each for each in captions]
    if any(caption is not None and not isinstance(caption, str | float) for caption in captions):
        raise ValueError(f"Row {row} of {source} has a caption that is no text ({value!r}); is it the right column?")
    if not captions or not all(isinstance(caption, str) and caption.strip() for caption in captions):
        raise ValueError(f"Row {row} of {source} has an empty caption ({value!r}); fill it in or leave the row out.")
    return [" ".join(caption.split()) for caption in captions]


def _merge_rows_of_a_picture(
    dataset: datasets.Dataset, image_column: str, captions: list[list[str]]
) -> tuple[datasets.Dataset, list[list[str]]]:
    """Join the rows of a table that name the same picture, one row for each of its captions."""
    first_rows: dict[str, int] = {}
    merged: dict[str, list[str]] = {}
    for row, image in enumerate(dataset[image_column]):
        first_rows.setdefault(image["path"], row)
        merged.setdefault(image["path"], []).extend(captions[row])
    if len(merged) == len(captions):
        return dataset, captions
    return dataset.select(list(first_rows.values())), list(merged.values())


def hold_back(
    dataset: datasets.Dataset, count: int | None, seed: int
) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Split a data set, by the seed, into pictures to train on and pictures that are held back.

    Args:
        dataset: as [`load_captioned_images`] gives it.
        count: by default a twentieth of the pictures, at most 200. With 0, or of fewer than 20, none are.
    """
    if count is None:
        count = min(int(SHARE_HELD_BACK * len(dataset)), MOST_PICTURES)
    if count == 0:
        return dataset, None
    if not 0 < count < len(dataset):
        raise ValueError(f"hold_back={count}: give 0 to {len(dataset) - 1}, for there are {len(dataset)} pictures.")
    order = np.random.default_rng(seed).permutation(len(dataset))
    return dataset.select(sorted(order[count:])), dataset.select(sorted(order[:count]))


def open_row(dataset: datasets.Dataset, row: int) -> Image.Image:
    """Decode the picture of a row.

    Raises:
        ValueError: it cannot be read; with the number of the row.
    """
    image = dataset[row]["image"]
    try:
        if isinstance(image, dict):
            image = Image.open(io.BytesIO(image["bytes"])) if image["bytes"] else image["path"]
        return open_image(image)
    except (ValueError, OSError, UnidentifiedImageError) as error:
        raise ValueError(f"Row {row} of the data set: {error} Mend the picture or leave the row out.") from error


class ImageCaptionPairs(torch.utils.data.Dataset):
    """Every caption with its picture: the examples that [`VLKDDistillationCollator`] takes.

    Args:
        pictures: one row a picture: `image`, or `image_embeds`, the numbers of `(views, rows, dim)` in a line.
        captions: one row a caption: `image_index`, `caption` and, if there is a teacher, `text_teacher_embeds`.
        views, dim: the shape of `image_embeds`; two views of an `image` are itself and its mirror image.
    """

    def __init__(self, pictures: datasets.Dataset, captions: datasets.Dataset, views: int = 1, dim: int = 0):
        self.pictures = pictures
        self.captions = captions
        self.views = views
        self.dim = dim

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        rows = self.captions[list(indices)]
        pictures = [int(picture) for picture in rows.pop("image_index")]
        if "image_embeds" in self.pictures.column_names:
            lines = self.pictures[pictures]["image_embeds"]
            rows["image_embeds"] = lines.reshape(len(lines), self.views, -1, self.dim)
        else:
            rows["image"] = [open_row(self.pictures, picture) for picture in pictures]
            rows["flip"] = [self.views > 1] * len(pictures)
        return [dict(zip(rows, values)) for values in zip(*rows.values())]
