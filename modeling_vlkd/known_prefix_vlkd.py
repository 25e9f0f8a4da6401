"""The known beginning of a text: what a prompt says before its first mask, and nobody needs to guess.

The paper does not tell whether decoding starts after it (arXiv:2203.06386, section 4.3). Both ways are here, and
`generation_config.force_prefix` says which one a checkpoint was found to do better with.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria


class KnownPrefix(NamedTuple):
    """The first tokens of each text to write.

    ids: `(batch, longest)`; what lies beyond a row's length means nothing.
    lengths: `(batch,)`; 0 where nothing is known.
    """

    ids: Tensor
    lengths: Tensor

    def row_of_each(self, written: Tensor) -> Tensor:
        """Tell which row each of the texts belongs to, that are written in several beams or samples."""
        return torch.arange(written.shape[0], device=written.device) // (written.shape[0] // self.ids.shape[0])


def known_prefix(input_ids: Tensor, mask_token_id: int, pad_token_id: int) -> KnownPrefix:
    """Take what stands before the first mask of each prompt, `(batch, length)`; of a text without masks, nothing."""
    is_mask = input_ids == mask_token_id
    first = (input_ids != pad_token_id).int().argmax(dim=1)  # behind the padding, if that is on the left
    lengths = torch.where(is_mask.any(dim=1), is_mask.int().argmax(dim=1) - first, 0)
    places = first[:, None] + torch.arange(int(lengths.max()), device=input_ids.device)
    return KnownPrefix(input_ids.gather(1, places.clamp(max=input_ids.shape[1] - 1)), lengths)


def prefix_to_force(generation_config: GenerationConfig, input_ids: Tensor | None) -> KnownPrefix | None:
    """Take the known beginnings that have to be forced; None if that is not asked for, or there is nothing to force.

    `force_prefix` and `mask_token_id` are fields of ours: a generation config of another origin has neither.
    """
    settings = generation_config.to_dict()
    mask_token_id = settings.get("mask_token_id")
    if not settings.get("force_prefix") or mask_token_id is None or input_ids is None:
        return None
    prefix = known_prefix(input_ids, mask_token_id, generation_config.pad_token_id)
    return prefix if prefix.ids.shape[1] else None


class KnownPrefixLogitsProcessor(LogitsProcessor):
    """Lets each text go on with its known beginning, whatever the model would write, until that is written.

    A text that began otherwise, by `decoder_input_ids` of its own, is left alone.
    """

    def __init__(self, prefix: KnownPrefix):
        self.prefix = prefix

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        place = input_ids.shape[1] - 1  # of the next token, behind the one that starts the decoder
        ids, lengths = self.prefix
        if place >= ids.shape[1]:
            return scores
        rows = self.prefix.row_of_each(input_ids)
        as_known = (input_ids[:, 1:] == ids[rows, :place]).all(dim=1)
        forced = torch.full_like(scores, -torch.inf).scatter(1, ids[rows, place, None], 0.0)
        return torch.where(((place < lengths[rows]) & as_known)[:, None], forced, scores)


class KnownPrefixCriteria(StoppingCriteria):
    """Ends a text after so many tokens behind its known beginning, however long those of the others in its batch are.

    Without it, what a model writes that does not end by itself would depend on the company.
    """

    def __init__(self, prefix: KnownPrefix, max_new_tokens: int):
        self.prefix = prefix
        self.max_new_tokens = max_new_tokens

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        known = self.prefix.lengths[self.prefix.row_of_each(input_ids)]
        return input_ids.shape[1] - 1 - known >= self.max_new_tokens
