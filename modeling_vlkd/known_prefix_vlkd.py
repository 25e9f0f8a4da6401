"""The known beginning of a text: what a prompt says before its first mask, and nobody needs to guess.

The paper does not tell whether decoding starts after it (arXiv:2203.06386, section 4.3). Both ways are here, and
`generation_config.force_prefix` says which one a checkpoint was found to do better with.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import GenerationConfig
from transformers.modeling_outputs import ModelOutput


def prefix_lengths(input_ids: Tensor, mask_token_id: int, pad_token_id: int | None) -> tuple[Tensor, Tensor]:
    """Find what stands before the first mask of each prompt, `(batch, length)`.

    Returns:
        Where each text begins, behind padding on its left, and how many tokens are known, 0 of a text without masks;
        `(batch,)` each.
    """
    is_mask = input_ids == mask_token_id
    first = torch.zeros_like(input_ids[:, 0])
    if pad_token_id is not None:
        first = (input_ids != pad_token_id).int().argmax(dim=1)
    return first, torch.where(is_mask.any(dim=1), is_mask.int().argmax(dim=1) - first, 0)


def known_prefixes(
    generation_config: GenerationConfig, input_ids: Tensor | None, start_token_id: int
) -> list[tuple[list[int], Tensor | None]]:
    """Group prompts by the length of their known beginnings, where these shall be forced.

    All texts of a batch have to start at one place: what a beam search makes of a text's length counts from there, and
    BART's positions are learned.

    Args:
        generation_config: `force_prefix` and `mask_token_id` are fields of ours; one of another origin has neither.
        input_ids: prompts, `(batch, length)`.

    Returns:
        Places of prompts, and what the decoder has written of their texts already, `(places, 1 + known)`; None where
        nothing is known. Nothing at all is an empty list.
    """
    settings = generation_config.to_dict()
    mask_token_id = settings.get("mask_token_id")
    if not settings.get("force_prefix") or mask_token_id is None or input_ids is None:
        return []
    first, lengths = prefix_lengths(input_ids, mask_token_id, settings.get("pad_token_id"))
    groups: list[tuple[list[int], Tensor | None]] = []
    for length in sorted(set(lengths.tolist())):
        places = (lengths == length).nonzero()[:, 0]
        written = first[places, None] + torch.arange(length, device=input_ids.device)
        start = input_ids.new_full((places.shape[0], 1), start_token_id)
        known = torch.cat([start, input_ids[places].gather(1, written)], dim=1) if length else None
        groups.append((places.tolist(), known))
    return groups


def take_rows(value: Any, places: list[int], batch: int) -> Any:
    """Take some rows of what `generate()` was given for a batch: of tensors, in tuples and outputs too."""
    if isinstance(value, Tensor) and value.ndim and value.shape[0] == batch:
        return value[places]
    if isinstance(value, ModelOutput):
        return type(value)(**{name: take_rows(each, places, batch) for name, each in value.items()})
    if isinstance(value, tuple):
        return tuple(take_rows(each, places, batch) for each in value)
    return value


def join_rows(parts: list[tuple[list[int], Tensor]], pad_token_id: int) -> Tensor:
    """Put texts that were written in groups in order again, padded on the right: `(batch * returned, longest)`."""
    longest = max(texts.shape[1] for _, texts in parts)
    rows: dict[int, Tensor] = {}
    for places, texts in parts:
        padded = pad(texts, (0, longest - texts.shape[1]), value=pad_token_id)
        rows |= dict(zip(places, padded.chunk(len(places))))  # each with its returned sequences
    return torch.cat([rows[place] for place in sorted(rows)])
