"""Choose how a distilled model writes: after the known beginning of its prompt, or all of the text by itself.

The paper does not say which (arXiv:2203.06386), and it depends on the data; so both are tried on captioned pictures.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel

from modeling_vlkd.processing_vlkd import ImageInput, VLKDProcessor

from .metrics import word_f1
from .vlkd_model import VLKDAdapter


MOST_PICTURES = 200  # enough to tell 3 % of word F1 apart


@dataclass(frozen=True)
class DecodingTrial:
    """The scores of both ways of decoding.

    Args:
        forced, free: mean word F1 of a caption and the nearest of its references, after the known beginning and not.
        pictures: on how many pictures.
    """

    forced: float
    free: float
    pictures: int

    @property
    def force_prefix(self) -> bool:
        return self.forced >= self.free  # if both score the same, force it: that generates fewer tokens

    def __str__(self) -> str:
        chosen = "after the known beginning" if self.force_prefix else "by itself"
        return f"{chosen} (word F1 {self.forced:.3f} after it, {self.free:.3f} by itself, on {self.pictures} pictures)"


def choose_decoding(
    model: PreTrainedModel,
    processor: VLKDProcessor,
    images: Iterable[ImageInput] | Tensor,
    references: Sequence[Sequence[str]],
    batch_size: int = 64,
) -> DecodingTrial:
    """Caption pictures both ways, and set `model.generation_config.force_prefix` to the better one.

    Args:
        images: pictures that were not trained on, or their rows, `(pictures, rows, dim)`.
        references: captions of each picture.
    """
    rows, scores = VLKDAdapter(model, processor, batch_size).look(images), {}
    for force_prefix in (True, False):
        captions = VLKDAdapter(model, processor, batch_size, force_prefix=force_prefix).caption(rows)
        found = [word_f1(caption.text, known) for caption, known in zip(captions, references, strict=True)]
        scores[force_prefix] = sum(found) / len(found)
    trial = DecodingTrial(scores[True], scores[False], len(references))
    model.generation_config.force_prefix = trial.force_prefix
    model.generation_config._from_model_config = False  # else transformers drops our field when it loads it again
    return trial
