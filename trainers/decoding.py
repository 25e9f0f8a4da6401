"""Chooses how a distilled model writes: after the known beginning of its prompt, or all of the text by itself.

The paper does not say which (arXiv:2203.06386), and it depends on the data; so both are tried on captioned pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import datasets
import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from modeling_vlkd.generation_vlkd import generate_captions
from modeling_vlkd.processing_vlkd import VLKDProcessor

from .data import open_row
from .metrics import word_f1
from .questions import embed_pictures


MOST_PICTURES = 200  # enough to tell 3 % of word F1 apart
SHARE = 0.05  # of the pictures that are held back where nobody says how many


@dataclass(frozen=True)
class DecodingTrial:
    """How well both ways of writing did.

    Args:
        forced, free: mean word F1 of a caption and the nearest of its references, after the known beginning and not.
        pictures: on how many pictures.
    """

    forced: float
    free: float
    pictures: int

    @property
    def force_prefix(self) -> bool:
        return self.forced >= self.free  # the shorter way where there is no difference

    def __str__(self) -> str:
        chosen = "after the known beginning" if self.force_prefix else "by itself"
        return f"{chosen} (word F1 {self.forced:.3f} after it, {self.free:.3f} by itself, on {self.pictures} pictures)"


def choose_decoding(
    model: PreTrainedModel,
    processor: VLKDProcessor,
    image_embeds: Tensor,
    references: Sequence[Sequence[str]],
    batch_size: int = 64,
) -> DecodingTrial:
    """Caption pictures both ways, and set `model.generation_config.force_prefix` to the better one.

    Args:
        image_embeds: `(pictures, rows, dim)`, of pictures that were not trained on.
        references: captions of each picture.
    """
    was_training = model.training
    model.eval()
    scores = {}
    for force_prefix in (True, False):
        captions = generate_captions(model, processor, image_embeds, batch_size=batch_size, force_prefix=force_prefix)
        found = [word_f1(best["caption"], known) for [best], known in zip(captions, references, strict=True)]
        scores[force_prefix] = sum(found) / len(found)
    model.train(was_training)
    trial = DecodingTrial(scores[True], scores[False], len(references))
    model.generation_config.force_prefix = trial.force_prefix
    model.generation_config._from_model_config = False  # of one that was, transformers reads no field of ours back
    return trial


def hold_back(
    dataset: datasets.Dataset, count: int | None, seed: int
) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Set pictures apart that are not trained on: what is left, and these, chosen by the seed.

    Args:
        dataset: as [`load_captioned_images`] gives it.
        count: by default a twentieth of the pictures, at most 200. With 0, or of fewer than 20, none are.
    """
    if count is None:
        count = min(int(SHARE * len(dataset)), MOST_PICTURES)
    if count == 0:
        return dataset, None
    if not 0 < count < len(dataset):
        raise ValueError(f"hold_back={count}: give 0 to {len(dataset) - 1}, for there are {len(dataset)} pictures.")
    order = np.random.default_rng(seed).permutation(len(dataset))
    return dataset.select(sorted(order[count:])), dataset.select(sorted(order[:count]))


def choose_decoding_on(
    dataset: datasets.Dataset, model: PreTrainedModel, processor: VLKDProcessor, batch_size: int = 64
) -> DecodingTrial:
    """Choose the decoding on captioned pictures, the first 200 of them at most; see `choose_decoding`.

    Args:
        dataset: as [`load_captioned_images`] gives it.
    """
    was_training = model.training
    model.eval()
    count = min(len(dataset), MOST_PICTURES)
    rows = embed_pictures((open_row(dataset, row) for row in range(count)), model, processor, batch_size)
    model.train(was_training)
    return choose_decoding(model, processor, rows, dataset["captions"][:count], batch_size)
