"""Find and force the known beginning of a text: what its prompt says before the first mask.

The model need not guess these words. The paper does not say whether decoding starts after them (arXiv:2203.06386,
section 4.3), so both ways are here; `generation_config.force_prefix` says which one works better with a checkpoint.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import GenerationConfig, PreTrainedConfig
from transformers.modeling_outputs import ModelOutput


def default_generation_config(text_config: PreTrainedConfig, mask_token_id: int | None = None) -> GenerationConfig:
    """Return the decoding defaults of a newly assembled model.

    Only the token ids come from BART. The other settings of published BARTs are made for summaries; their ban on
    repeated phrases, for example, would keep an answer from using the words of its question. A BART fills masks well
    only if its text begins with `<s>`, which `forced_bos_token_id` ensures; the texts of an mBART begin with the code
    of a language, which its configuration does not name. `force_prefix` and `mask_token_id` are fields of ours, see
    [`VLKDForConditionalGeneration.generate`].
    """
    return GenerationConfig(
        bos_token_id=text_config.bos_token_id,
        pad_token_id=text_config.pad_token_id,
        eos_token_id=text_config.eos_token_id,
        decoder_start_token_id=text_config.decoder_start_token_id,
        forced_bos_token_id=text_config.bos_token_id if text_config.model_type == "bart" else None,
        max_new_tokens=32,
        num_beams=4,
        force_prefix=True,
        mask_token_id=mask_token_id,
    )


def prefix_lengths(input_ids: Tensor, mask_token_id: int, pad_token_id: int | None) -> tuple[Tensor, Tensor]:
    """Find the tokens before the first mask of each prompt, `(batch, length)`.

    Returns:
        Two tensors `(batch,)`: the position where each text begins, after any padding on its left, and the number of
        known tokens, which is 0 for a text without masks.
    """
    is_mask = input_ids == mask_token_id
    first = torch.zeros_like(input_ids[:, 0])
    if pad_token_id is not None:
        first = (input_ids != pad_token_id).int().argmax(dim=1)
    return first, torch.where(is_mask.any(dim=1), is_mask.int().argmax(dim=1) - first, 0)


def known_prefixes(
    generation_config: GenerationConfig, input_ids: Tensor | None, start_token_id: int
) -> list[tuple[list[int], Tensor | None]]:
    """Group prompts by the length of their known beginnings, if these are to be forced.

    A batch is generated with beginnings of one length only, because beam search counts a text's length from there, and
    because padding before a text would change its positions, which BART has learned.

    Args:
        generation_config: with our own fields `force_prefix` and `mask_token_id`; a configuration that was not made
            here has neither.
        input_ids: prompts, `(batch, length)`.
        start_token_id: the token that starts the decoder.

    Returns:
        For each group, the positions of its prompts in the batch, and the decoder's first tokens `(positions, 1 +
        known)`, or None if the group has no known beginning. The list is empty if nothing is to be forced.
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
    """Select rows of an argument of `generate()`: of tensors with `batch` rows, also inside tuples and outputs."""
    if isinstance(value, Tensor) and value.ndim and value.shape[0] == batch:
        return value[places]
    if isinstance(value, ModelOutput):
        return type(value)(**{name: take_rows(each, places, batch) for name, each in value.items()})
    if isinstance(value, tuple):
        return tuple(take_rows(each, places, batch) for each in value)
    return value


def join_rows(parts: list[tuple[list[int], Tensor]], pad_token_id: int) -> Tensor:
    """Put the texts of all groups back into the order of the batch, padded on the right.

    Args:
        parts: for each group, the positions of its prompts, and its texts `(positions * returned, length)`, where
            `returned` is `num_return_sequences`.

    Returns:
        `(batch * returned, longest)`.
    """
    longest = max(texts.shape[1] for _, texts in parts)
    rows: dict[int, Tensor] = {}
    for places, texts in parts:
        padded = pad(texts, (0, longest - texts.shape[1]), value=pad_token_id)
        rows |= dict(zip(places, padded.chunk(len(places))))  # each with its returned sequences
    return torch.cat([rows[place] for place in sorted(rows)])
