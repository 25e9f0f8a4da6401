"""Retrieval as COCO 5K and Flickr30K 1K measure it, of a caption for each picture and of a picture for each caption.

The captions of a picture, and no others, are right for it, even if another picture has the same words. (Training
measures among pairs instead, and forgives equal captions: see `retrieval.py`.) Nearness is the cosine.

Candidates that are equally near stand in no order, so every order of them counts alike: `R@k` is then the probability
to find something right among the first `k`, and the rank is the expected one. A model that embeds everything alike
scores what guessing scores. Cosines are computed in double precision; those that differ by less than 1e-12 are equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import EvaluationError


RECALL_AT = (1, 5, 10)
IMAGE_TO_TEXT, TEXT_TO_IMAGE = "i2t", "t2i"
ALIKE = 1e-12  # rounding in double precision is a thousand times less
CHUNK = 256  # pictures that are compared with all captions at once


@dataclass(frozen=True)
class QueryRanks:
    """Where each query finds its first right candidate; all are `(queries,)`.

    Args:
        nearer: wrong candidates that are nearer than every right one.
        tied: wrong candidates that are as near as the nearest right one.
        right: right candidates that are as near as that, itself included.
        nearest: the place of the candidate that is nearest, right or wrong.
    """

    nearer: Tensor
    tied: Tensor
    right: Tensor
    nearest: Tensor

    def ranks(self) -> Tensor:
        """Compute the expected rank of the first right candidate, 1 for the nearest: `(queries,)`.

        Before the first of `right` there are `tied / (right + 1)` of the `tied` on average.
        """
        return 1 + self.nearer + self.tied / (self.right + 1)

    def hits(self, k: int) -> Tensor:
        """Compute the probability that something right is among the first `k`: `(queries,)`, 0 or 1 without ties.

        What is missed: that the places left by those that are nearer are all drawn from the wrong ones of the tie.
        """
        missed = torch.ones(len(self.nearer), dtype=torch.float64)
        for drawn in range(k):
            wrong_left = (self.tied - drawn).clamp(min=0) / (self.tied + self.right - drawn).clamp(min=1)
            missed = torch.where(drawn < k - self.nearer, missed * wrong_left, missed)
        return 1 - missed


@dataclass(frozen=True)
class Ranking:
    """What each picture finds among the captions, and each caption among the pictures."""

    images: QueryRanks
    texts: QueryRanks

    def figures(self) -> dict[str, float]:
        """Compute `i2t_R@1` ... `t2i_R@10`, their mean `mean_recall`, and `i2t_median_rank` and `t2i_median_rank`."""
        directions = {IMAGE_TO_TEXT: self.images, TEXT_TO_IMAGE: self.texts}
        recalls = {
            f"{name}_R@{k}": queries.hits(k).mean().item() for name, queries in directions.items() for k in RECALL_AT
        }
        medians = {f"{name}_median_rank": queries.ranks().quantile(0.5).item() for name, queries in directions.items()}
        return recalls | {"mean_recall": sum(recalls.values()) / len(recalls)} | medians


def rank_both_ways(image_embeds: Tensor, text_embeds: Tensor, image_of: Sequence[int] | Tensor) -> Ranking:
    """Rank all captions for each picture, and all pictures for each caption.

    Similarities are computed for 256 pictures at a time, so that memory grows with the captions only.

    Args:
        image_embeds: `(images, dim)`, normalized or not.
        text_embeds: `(captions, dim)`.
        image_of: `(captions,)`, the place of each caption's picture; every picture has at least one caption.

    Raises:
        EvaluationError: the shapes do not belong together, a picture has no caption, or a number is not finite.
    """
    image_of = torch.as_tensor(image_of)
    refuse_unrankable(image_embeds, text_embeds, image_of)
    images, texts = (F.normalize(embeds.double(), dim=-1) for embeds in (image_embeds, text_embeds))
    own = (images[image_of] * texts).sum(dim=1)  # (captions,), each with its own picture
    of_images = []
    text_nearer, text_tied, text_nearest = (torch.zeros_like(own) for _ in range(3))
    text_best = torch.full_like(own, -torch.inf)
    for first in range(0, len(images), CHUNK):
        near = images[first : first + CHUNK] @ texts.T  # (chunk, captions)
        is_own = image_of == torch.arange(first, first + len(near))[:, None]  # (chunk, captions)
        best_own = near.masked_fill(~is_own, -torch.inf).amax(dim=1, keepdim=True)  # (chunk, 1)
        nearer, tied = compare(near, best_own, ~is_own)
        right = is_own & (near >= best_own - ALIKE)
        of_images.append(torch.stack([nearer.sum(1), tied.sum(1), right.sum(1), near.argmax(1)]))
        nearer, tied = compare(near, own, ~is_own)
        text_nearer += nearer.sum(dim=0)
        text_tied += tied.sum(dim=0)
        best, place = near.max(dim=0)
        text_nearest = torch.where(best > text_best, place + first, text_nearest)
        text_best = torch.maximum(best, text_best)
    nearer, tied, right, nearest = torch.cat(of_images, dim=1)  # (4, images)
    return Ranking(
        QueryRanks(nearer.double(), tied.double(), right.double(), nearest),
        QueryRanks(text_nearer, text_tied, torch.ones_like(own), text_nearest.long()),
    )


def compare(near: Tensor, reference: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
    """Mark the wrong candidates that are nearer than a reference, and those that are as near; all of one shape."""
    alike = (near - reference).abs() <= ALIKE
    return wrong & ~alike & (near > reference), wrong & alike


def refuse_unrankable(image_embeds: Tensor, text_embeds: Tensor, image_of: Tensor):
    """Stop at embeddings that cannot be ranked."""
    if image_embeds.shape[1:] != text_embeds.shape[1:] or len(text_embeds) != len(image_of):
        raise EvaluationError(
            f"Got {len(image_embeds)} pictures of {tuple(image_embeds.shape[1:])} numbers and {len(text_embeds)} "
            f"captions of {tuple(text_embeds.shape[1:])}, {len(image_of)} of them with a picture; give embeddings of "
            "one space."
        )
    captions = torch.bincount(image_of, minlength=len(image_embeds))
    if len(captions) > len(image_embeds) or not captions.all():
        raise EvaluationError(
            f"{int((captions == 0).sum())} of {len(image_embeds)} pictures have no caption, or a caption has no "
            "picture; give both."
        )
    for name, embeds in (("picture", image_embeds), ("caption", text_embeds)):
        if len(wrong := (~embeds.isfinite().all(dim=1)).nonzero().flatten()):
            raise EvaluationError(
                f"{len(wrong)} {name} embeddings, such as the one at {int(wrong[0])}, hold numbers that are not "
                "finite; mend the model, or run it in float32."
            )


def rank_folds(
    image_embeds: Tensor, text_embeds: Tensor, image_of: Sequence[int] | Tensor, folds: int
) -> dict[str, float]:
    """Average the figures over folds of consecutive pictures: with 5 folds of COCO's 5,000 this is "COCO 1K".

    Args:
        image_embeds, text_embeds, image_of: as those of [`rank_both_ways`].

    Raises:
        EvaluationError: the pictures cannot be divided into so many folds of one size.
    """
    image_of, count = torch.as_tensor(image_of), len(image_embeds)
    if folds < 2 or count % folds:
        raise EvaluationError(f"{count} pictures make no {folds} folds of one size; give a number that divides them.")
    size, figures = count // folds, []
    for fold in range(folds):
        chosen = image_of // size == fold
        images, texts = image_embeds[fold * size : (fold + 1) * size], text_embeds[chosen]
        figures.append(rank_both_ways(images, texts, image_of[chosen] - fold * size).figures())
    return {name: sum(each[name] for each in figures) / folds for name in figures[0]}
