"""What a training run learns from, kept with its checkpoints: a run goes on with the data that it began with."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from modeling_vlkd.publishing.provenance import public_name


FILE_NAME = "trained_on.json"


class OtherDataError(ValueError):
    """A checkpoint that was trained on other data than those that it is to go on with."""


@dataclass(frozen=True)
class TrainedOn:
    """A description of training data that is equal for equal data, on any machine.

    Args:
        examples: how many; None of a stream.
        name: of the data set, as a card tells it; None if nobody has told.
        fingerprint: hash of texts and of names and sizes of pictures; None if it was not computed.
    """

    examples: int | None
    name: str | None = None
    fingerprint: str | None = None

    @classmethod
    def of_pairs(cls, source: str, split: str, pictures: datasets.Dataset) -> "TrainedOn":
        """Describe pictures with their captions, as [`load_captioned_images`] gives them."""
        digest, examples = hashlib.sha256(), 0
        for table in pictures.with_format("arrow").iter(batch_size=1000):
            captions = table["captions"].to_pylist()
            for picture, texts in zip(names_and_sizes(table["image"]), captions):
                add_row(digest, picture, texts)
            examples += sum(map(len, captions))
        return cls(examples, f"{public_name(source)[0]}, split {split}", digest.hexdigest()[:32])

    @classmethod
    def of_questions(cls, source: str, rows: Sequence[Mapping[str, Any]]) -> "TrainedOn":
        """Describe questions about pictures, as [`read_answered_questions`] gives them."""
        digest = hashlib.sha256()
        for row in rows:
            add_row(digest, name_and_size(row["image"]), [row["question"], *row["answers"]])
        return cls(len(rows), public_name(source)[0], digest.hexdigest()[:32])

    @classmethod
    def of_texts(cls, source: str, rows: Iterable[Sequence[str]]) -> "TrainedOn":
        """Describe rows of texts, such as a document and its summary, or a text and its label."""
        digest, examples = hashlib.sha256(), 0
        for texts in rows:
            add_row(digest, ("", None), texts)
            examples += 1
        return cls(examples, public_name(source)[0], digest.hexdigest()[:32])

    def __str__(self) -> str:
        name = self.name or "data without a name"
        count = "a stream" if self.examples is None else f"{self.examples} examples"
        return f"{name} ({count}, {self.fingerprint[:8]})" if self.fingerprint else f"{name} ({count})"

    def save(self, checkpoint: Path):
        (checkpoint / FILE_NAME).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def refuse_other(self, checkpoint: str | Path):
        """Stop if a checkpoint was trained on other data; a checkpoint that does not say is accepted.

        Raises:
            OtherDataError: with both data sets and what to do.
        """
        path = Path(checkpoint, FILE_NAME)
        if not path.is_file():
            return
        before = TrainedOn(**json.loads(path.read_text(encoding="utf-8")))
        for ours, theirs in ((self.fingerprint, before.fingerprint), (self.examples, before.examples)):
            if ours is not None and theirs is not None and ours != theirs:
                raise OtherDataError(
                    f"{checkpoint} was trained on {before}, and not on {self}; give the same data, or begin anew from "
                    f"its model (`--checkpoint {checkpoint}`) in another output_dir."
                )


def add_row(digest: "hashlib._Hash", picture: tuple[str, int | None], texts: Sequence[str]):
    digest.update(json.dumps([picture, texts]).encode() + b"\n")


def names_and_sizes(images: pa.ChunkedArray) -> Iterator[tuple[str, int | None]]:
    """Give name and size of each picture: they are the same wherever it is kept, and known without reading it.

    Args:
        images: a column of paths, or of `{"bytes": ..., "path": ...}`, as `datasets` keeps pictures.
    """
    if not pa.types.is_struct(images.type):
        yield from map(name_and_size, images.to_pylist())
        return
    paths = pc.struct_field(images, "path").to_pylist()
    sizes = pc.binary_length(pc.struct_field(images, "bytes")).to_pylist()
    for path, size in zip(paths, sizes):
        yield name_and_size(path) if size is None else (Path(path or "").name, size)


def name_and_size(path: str) -> tuple[str, int | None]:
    try:
        return Path(path).name, os.path.getsize(path)
    except OSError:  # a missing picture is reported when it is read
        return Path(path).name, None
