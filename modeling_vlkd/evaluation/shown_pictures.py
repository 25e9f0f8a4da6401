"""What a model is shown of the pictures of a data set: they themselves or, as a control, something else."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from modeling_vlkd.processing_vlkd import ImageInput

from .errors import EvaluationError


CONTROLS = ("none", "shuffled", "blank")
BLANK = Image.new("RGB", (224, 224), (128, 128, 128))


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

    @cached_property
    def exchanged(self) -> dict[int, int]:
        """Tell for each picture which other one is shown: no picture stays, and each is shown once."""
        images = sorted(self.files)
        random.Random(self.seed).shuffle(images)
        return dict(zip(images, images[1:] + images[:1]))

    @property
    def hidden(self) -> bool:
        """Tell whether no picture is shown at all."""
        return self.control == "none"

    def show(self, image_ids: Iterable[int]) -> list[ImageInput]:
        """Give what is shown for each of these pictures; files are left to the model to open, a few at a time."""
        return [self.shown_file(image) or BLANK for image in image_ids]

    def shown_file(self, image: int) -> Path | None:
        """Tell which file is shown for a picture; None if it is none of the data set."""
        if self.control in ("none", "blank"):
            return None
        return self.files[self.exchanged[image] if self.control == "shuffled" else image]

    def shown_name(self, image: int) -> str | None:
        """Name the file that is shown, for reports."""
        path = self.shown_file(image)
        return None if path is None else str(path)
