"""Files of questions about pictures, with answers: for finetuning, and for evaluation during a distillation."""

import os
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image
from tqdm import tqdm
from transformers import PreTrainedModel

from modeling_vlkd.processing_vlkd import VLKDProcessor, open_image

from .tables import filled_fields, read_table
from .vlkd_model import VLKDAdapter
from .vqa import QuestionSet


COLUMNS = ("image", "question", "answer")


def read_questions(path: str | Path) -> list[dict[str, str]]:
    """Read a CSV or JSON-lines file with the columns `image`, `question` and `answer`.

    Images are paths, relative to the file. `place` says of each row from which line it is.

    Raises:
        FileNotFoundError, ValueError: no such file or column, or a line that cannot be read or has no picture, by its
            number.
    """
    path = Path(path)
    rows: list[dict[str, str]] = []
    pictures: set[Path] = set()
    for line, row in read_table(path, COLUMNS):
        fields = filled_fields(row, COLUMNS, f"Line {line} of {path}")
        image = path.parent / fields["image"]
        if image not in pictures and not image.is_file():
            raise FileNotFoundError(f"Line {line} of {path}: there is no picture {image}; mend the path.")
        pictures.add(image)
        rows.append(fields | {"image": str(image), "place": f"Line {line} of {path}"})
    if not rows:
        raise ValueError(f"{path} holds no questions; give a file with the columns image, question, answer.")
    return rows


def make_question_set(
    rows: Sequence[Mapping[str, Any]] | Dataset, model: PreTrainedModel, processor: VLKDProcessor
) -> QuestionSet:
    """Look at each picture once and keep its rows.

    Args:
        rows: dictionaries, or a data set of `datasets`, with `image` (a path or a PIL image), `question`, `answer`.

    Raises:
        ValueError: there are no rows, or a picture cannot be read, by its row or its line.
    """
    if not len(rows):
        raise ValueError("Expected rows with image, question and answer, got none.")
    columns = rows.select_columns(["question", "answer"]) if isinstance(rows, Dataset) else rows  # decodes nothing
    questions, answers = ([row[name] for row in columns] for name in ("question", "answer"))
    where = [row.get("place", f"Row {number} of the questions") for number, row in enumerate(columns)]
    refuse_overlong(questions, answers, where, processor)
    places: dict[str | bytes, int] = {}
    image_index = []

    def new_pictures() -> Iterator[Image.Image]:
        for place, row in zip(where, tqdm(rows, desc="Image rows", unit="question")):
            key, picture = picture_key(row["image"], place)
            if key not in places:
                places[key] = len(places)
                yield picture or open_picture(row["image"], place)
            image_index.append(places[key])

    embeds = VLKDAdapter(model, processor).look(new_pictures())
    return QuestionSet(questions, answers, embeds, image_index)


def refuse_overlong(questions: Sequence[str], answers: Sequence[str], where: Sequence[str], processor: VLKDProcessor):
    """Stop at a question, or one with its answer, that is longer than the model can read.

    Raises:
        ValueError: with its row or line, and how many tokens it has.
    """
    refuse_overlong_texts(processor.question_prompts(questions), where, processor)
    refuse_overlong_texts(processor.filled_questions(questions, answers), where, processor)


def refuse_overlong_texts(
    texts: Sequence[str], where: Sequence[str], processor: VLKDProcessor, remedy: str = "shorten it"
):
    """Stop at a text that is longer than the model can read; `where` says of each from which row or line it is."""
    limit = processor.tokenizer.model_max_length
    for place, tokens in zip(where, processor.tokenizer(list(texts), verbose=False)["input_ids"]):
        if len(tokens) > limit:
            raise ValueError(f"{place} has {len(tokens)} tokens, the model reads at most {limit}; {remedy}.")


def picture_key(image: Any, place: str) -> tuple[str | bytes, Image.Image | None]:
    """Give a key that is equal for equal pictures, and the picture if it had to be opened for that.

    The key of a path is the path itself; that of a picture in memory is a digest of its pixels.
    """
    if isinstance(image, str | os.PathLike):
        return os.fspath(image), None
    picture = open_picture(image, place)
    return sha256(f"{picture.size}".encode() + picture.tobytes()).digest(), picture


def open_picture(image: Any, place: str) -> Image.Image:
    try:
        return open_image(image)
    except (ValueError, OSError) as error:
        raise ValueError(f"{place}: {error} Mend the picture or leave the row out.") from error
