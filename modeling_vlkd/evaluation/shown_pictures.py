"""What a model is shown of the pictures of a data set: they themselves or, as a control, something else."""

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from modeling_vlkd.processing_vlkd import open_image

from .errors import EvaluationError


CONTROLS = ("none", "shuffled", "blank")
BLANK = Image.new("RGB", (224, 224), (128, 128, 128))


def open_pictures(paths: Iterable[str | Path]) -> Iterator[Image.Image]:
    """Open picture files one by one, so that whoever takes them holds as few in memory as it likes.

    Raises:
        EvaluationError: one cannot be read.
    """
    for path in paths:
        try:
            yield open_image(Path(path))
        except (ValueError, OSError) as error:
            raise EvaluationError(f"{error} Mend the picture or leave it out.") from error


@dataclass(frozen=True)
class ShownPictures:
    """The pictures of a data set, or a control that tells how much of a score does not come from them.

    Args:
        files: by image id.
        control: "none" shows no picture at all, "shuffled" another of the data set, "blank" a gray one; None shows the
            pictures themselves.
        seed: of the shuffling.

    Raises:
        EvaluationError: the control is another, or there is only one picture to be shuffled.
    """

    files: Mapping[int, Path]
    control: str | None = None
    seed: int = 0

    def __post_init__(self):
        if self.control not in (None, *CONTROLS):
            raise EvaluationError(f"There is no control {self.control!r}; choose one of {', '.join(CONTROLS)}.")
        if self.control == "shuffled" and len(self.files) < 2:
            raise EvaluationError("A single picture cannot be shuffled; give more of them, or another control.")

    def exchanged(self) -> dict[int, int]:
        """Tell for each picture which other one is shown: no picture stays, and each is shown once."""
        images = sorted(self.files)
        random.Random(self.seed).shuffle(images)
        return dict(zip(images, images[1:] + images[:1]))

    @property
    def hidden(self) -> bool:
        """Tell whether no picture is shown at all."""
        return self.control == "none"

    def show(self, image_ids: Iterable[int]) -> Iterator[Image.Image]:
        """Open what is shown for each of these pictures."""
        if self.control == "blank":
            return (BLANK for _ in image_ids)
        if self.control == "shuffled":
            exchanged = self.exchanged()
            image_ids = [exchanged[image] for image in image_ids]
        return open_pictures(self.files[image] for image in image_ids)
