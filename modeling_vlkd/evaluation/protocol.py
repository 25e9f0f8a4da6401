"""What a benchmark may ask of a model, whoever made it: to look, answer, caption and embed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from modeling_vlkd.processing_vlkd import ImageInput


@dataclass(frozen=True)
class Answer:
    """What a model says to a question.

    Args:
        text: the answer alone, without the question.
        score: its probability by the model, 0 to 1; None from a model that tells none.
    """

    text: str
    score: float | None = None


@dataclass(frozen=True)
class Caption:
    """What a model says of a picture; `text` and `score` as in [`Answer`]."""

    text: str
    score: float | None = None


class VisionLanguageModel(Protocol):
    """A model as benchmarks see it.

    Every method also accepts, as `images`, what `look` returned, so that a picture is encoded once for many questions
    or evaluations.
    """

    def look(self, images: Iterable[ImageInput]) -> Any:
        """Look at pictures once, and give back what the other methods need of them.

        A model that cannot prepare anything gives the pictures back.
        """

    def answer(self, images: Any, questions: Sequence[str], image_index: Sequence[int] | None = None) -> list[Answer]:
        """Answer questions.

        Args:
            images: pictures, or what `look` gave; None to have text alone answer.
            image_index: for each question, which image it is about; question i is about image i by default.
        """

    def caption(self, images: Any) -> list[Caption]:
        """Caption pictures, one caption each."""

    def embed_images(self, images: Any) -> Tensor:
        """Embed pictures in a space that texts share: `(images, dim)`, not normalized."""

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts in the space of the pictures: `(texts, dim)`, not normalized."""
