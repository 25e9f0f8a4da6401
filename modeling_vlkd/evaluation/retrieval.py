"""Retrieval among image-caption pairs: the caption of a picture, and the picture of a caption."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

from .metrics import image_text_recall


RECALL_AT = (1, 5, 10)
DIRECTIONS = ("retrieval_i2t", "retrieval_t2i")


def recall_name(direction: str, k: int) -> str:
    return direction if k == 1 else f"{direction}_at_{k}"


def content_keys(rows: Iterable[Tensor]) -> Tensor:
    """Hash each row to an integer of 64 bits, equal for equal rows: `(rows,)`, on the CPU."""
    values = [row.detach().contiguous().flatten().view(torch.uint8).cpu().numpy().tobytes() for row in rows]
    digests = [hashlib.blake2b(value, digest_size=8).digest() for value in values]
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in digests])


def pair_retrieval(
    image_embeds: Tensor, text_embeds: Tensor, picture_keys: Tensor, caption_keys: Tensor
) -> dict[str, float]:
    """Measure retrieval both ways among pairs, as [`image_text_recall`] counts it.

    Args:
        image_embeds, text_embeds: `(pairs, dim)`.
        picture_keys, caption_keys: `(pairs,)`, integers, equal for equal pictures and for equal captions.

    Returns:
        `retrieval_i2t`, `retrieval_i2t_at_5`, ..., and among how many pairs and pictures.
    """
    metrics: dict[str, float] = {}
    recalls = image_text_recall(image_embeds, text_embeds, picture_keys, caption_keys, RECALL_AT)
    for direction, recall in zip(DIRECTIONS, recalls):
        metrics |= {recall_name(direction, k): share for k, share in zip(RECALL_AT, recall)}
    metrics["retrieval_pairs"] = len(picture_keys)
    metrics["retrieval_pictures"] = len(picture_keys.unique())
    return metrics
