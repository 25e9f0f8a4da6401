"""Metrics as plain functions of predictions and references."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Compute the share of predictions that equal their reference."""
    if len(predictions) != len(references):
        raise ValueError(
            f"Expected equal numbers, got {len(predictions)} predictions and {len(references)} references."
        )
    return sum(map(str.__eq__, predictions, references)) / max(len(predictions), 1)


def balanced_exact_match(predictions: Sequence[str], references: Sequence[str], groups: Sequence[Hashable]) -> float:
    """Average the exact matches of groups, so that each group counts alike however many members it has.

    With `groups` of (negated or not, right answer) this is the balanced accuracy of yes/no questions, at which always
    saying the commoner answer scores .5.
    """
    members = defaultdict(list)
    for prediction, reference, group in zip(predictions, references, groups, strict=True):
        members[group].append(prediction == reference)
    return sum(sum(hits) / len(hits) for hits in members.values()) / max(len(members), 1)


def retrieval_recall(
    queries: Tensor,
    candidates: Tensor,
    is_relevant: Callable[[Tensor, Tensor], Tensor] = torch.eq,
    ks: Sequence[int] = (1,),
    chunk: int = 1024,
) -> list[float]:
    """Compute, for each `k`, the share of queries that find a relevant candidate among the `k` nearest by cosine.

    Similarities are computed for `chunk` queries at a time, so that memory grows with the candidates only.

    Args:
        queries: `(queries, dim)`.
        candidates: `(candidates, dim)`.
        is_relevant: says of places of queries, `(chunk, 1)`, and of candidates, `(chunk, k)`, which belong together,
            `(chunk, k)`, bool; by default query i looks for candidate i.
    """
    candidates = F.normalize(candidates.float(), dim=-1)
    hits = torch.zeros(len(ks), device=queries.device)
    for first in range(0, len(queries), chunk):
        similarity = F.normalize(queries[first : first + chunk].float(), dim=-1) @ candidates.T  # (chunk, candidates)
        nearest = similarity.topk(min(max(ks), len(candidates)), dim=1).indices  # best first
        places = torch.arange(first, first + len(nearest), device=queries.device)
        found = is_relevant(places[:, None], nearest)
        hits += torch.stack([found[:, :k].any(dim=1).sum() for k in ks])
    return (hits / len(queries)).tolist()


def image_text_recall(
    image_embeds: Tensor, text_embeds: Tensor, picture_keys: Tensor, caption_keys: Tensor, ks: Sequence[int]
) -> tuple[list[float], list[float]]:
    """Compute the recall of retrieval among pairs at each `k`: image to text, and text to image.

    As in the protocols of COCO and Flickr30K, a picture stands once among the queries and once among the candidates,
    however many captions it has, and every caption stands for itself. A caption is right for a picture if it is one of
    its own, or equal to one of its own.

    Args:
        image_embeds, text_embeds: `(pairs, dim)`.
        picture_keys, caption_keys: `(pairs,)`, integers, equal for equal pictures and for equal captions.
    """
    pictures, picture_of = picture_keys.unique(return_inverse=True)
    captions, caption_of = caption_keys.unique(return_inverse=True)
    places = torch.arange(len(picture_of), device=picture_of.device)
    first = places.new_full((len(pictures),), len(places)).scatter_reduce(0, picture_of, places, "amin")
    true = (picture_of * len(captions) + caption_of).unique()  # each picture with each of its captions

    def says_so(pictures: Tensor, pairs: Tensor) -> Tensor:
        return torch.isin(pictures * len(captions) + caption_of[pairs], true)

    images = image_embeds[first]  # (pictures, dim)
    return (
        retrieval_recall(images, text_embeds, says_so, ks),
        retrieval_recall(text_embeds, images, lambda pairs, pictures: says_so(pictures, pairs), ks),
    )


def word_f1(prediction: str, references: Sequence[str]) -> float:
    """Compute F1 of the words, the harmonic mean of their precision and recall, against the best of the references.

    Words are compared in lower case, without punctuation, and as often as they occur (as in SQuAD, arXiv:1606.05250).
    """
    said = Counter(re.findall(r"\w+", prediction.lower()))
    known = [Counter(re.findall(r"\w+", reference.lower())) for reference in references]
    return max((2 * (said & each).total() / max(said.total() + each.total(), 1) for each in known), default=0.0)
