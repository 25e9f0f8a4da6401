"""Metrics as plain functions of predictions and references."""

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Share of predictions that equal their reference."""
    if len(predictions) != len(references):
        raise ValueError(
            f"Expected equal numbers, got {len(predictions)} predictions and {len(references)} references."
        )
    return sum(map(str.__eq__, predictions, references)) / max(len(predictions), 1)


def balanced_exact_match(predictions: Sequence[str], references: Sequence[str], groups: Sequence[Hashable]) -> float:
    """Mean of the groups' exact matches, each counting alike however many members it has.

    With `groups` of (negated or not, right answer) this is the balanced accuracy of yes/no questions, at which always
    saying the commoner answer scores .5.
    """
    members = defaultdict(list)
    for prediction, reference, group in zip(predictions, references, groups, strict=True):
        members[group].append(prediction == reference)
    return sum(sum(hits) / len(hits) for hits in members.values()) / max(len(members), 1)


def retrieval_recall(queries: Tensor, candidates: Tensor, relevant: Tensor | None = None, k: int = 1) -> float:
    """Share of queries with a relevant candidate among the `k` nearest by cosine.

    Args:
        queries: `(queries, dim)`.
        candidates: `(candidates, dim)`.
        relevant: `(queries, candidates)`, bool; by default query i looks for candidate i.
    """
    similarity = F.normalize(queries.float(), dim=-1) @ F.normalize(candidates.float(), dim=-1).T
    if relevant is None:
        relevant = torch.eye(*similarity.shape, dtype=torch.bool, device=similarity.device)
    nearest = similarity.topk(min(k, similarity.shape[1]), dim=1).indices
    return relevant.gather(1, nearest).any(dim=1).float().mean().item()


def word_f1(prediction: str, references: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of the words, of the reference that is nearest.

    Words are compared in lower case, without punctuation, and as often as they occur (as in SQuAD, arXiv:1606.05250).
    """
    said = Counter(re.findall(r"\w+", prediction.lower()))
    known = [Counter(re.findall(r"\w+", reference.lower())) for reference in references]
    return max((2 * (said & each).total() / max(said.total() + each.total(), 1) for each in known), default=0.0)
