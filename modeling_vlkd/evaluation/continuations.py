"""How likely a VLKD finds a text in the place of a prompt's masks."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import PreTrainedModel

from .vlkd_model import evaluating


Tokens = Sequence[int]


def known_beginning(prompt: Tokens, mask_token_id: int) -> Tokens:
    """Return the tokens of a prompt before its first mask, `<s>` included: what the decoder is given.

    Raises:
        ValueError: there is no mask to fill.
    """
    if mask_token_id not in prompt:
        raise ValueError(f"Expected a prompt with a mask to fill (token {mask_token_id}), got the tokens {prompt}.")
    return prompt[: prompt.index(mask_token_id)]


def score_continuations(
    model: PreTrainedModel,
    prompts: Sequence[Tokens],
    continuations: Sequence[Tokens],
    mask_token_id: int,
    image_embeds: Tensor | None = None,
    image_index: Sequence[int] | None = None,
    batch_size: int = 32,
    progress: bool = False,
) -> list[tuple[float, bool]]:
    """Score texts that follow the known beginnings of prompts.

    The encoder reads the whole prompt, with its masks, and the picture if there is one. The decoder is given what
    the prompt says before its first mask, as `generate` forces it with `force_prefix`, and then the continuation,
    each token of which gets the probability that the model gives to it there. What would come after it, such as the
    period of the prompt and the end of the text, is not scored.

    A score does not depend on what else is in its batch, but for the rounding of floating-point numbers.

    Args:
        model: a `VLKDForConditionalGeneration`, in any mode; it is evaluated without dropout.
        prompts: token ids with `<s>`, at least one mask and `</s>`.
        continuations: token ids of at least one token, without special tokens.
        image_embeds, image_index: rows V, `(images, rows, dim)`, and for each prompt the index of its image; by
            default the model sees only the texts.
        batch_size: how many are scored at once, those of like length together.
        progress: draw a bar.

    Returns:
        For each, the natural logarithm of its probability, and whether each of its tokens is the most likely one.

    Raises:
        ValueError: unequal numbers of prompts and continuations, or an empty continuation.
    """
    if len(prompts) != len(continuations) or not all(continuations):
        raise ValueError(
            f"Expected one continuation of at least one token for each prompt, got {len(prompts)} prompts and the "
            f"lengths {[len(each) for each in continuations][:5]} of {len(continuations)} continuations."
        )
    scores: list[tuple[float, bool]] = [(0.0, True)] * len(prompts)
    with evaluating(model), tqdm(total=len(prompts), unit="text", disable=not progress) as bar:
        for places in batches_of_like_length(prompts, continuations, batch_size):
            rows = None
            if image_embeds is not None and image_index is not None:
                rows = image_embeds[[image_index[place] for place in places]].to(model.device, model.dtype)
            asked, texts = [prompts[place] for place in places], [continuations[place] for place in places]
            for place, score in zip(places, score_batch(model, asked, texts, mask_token_id, rows)):
                scores[place] = score
            bar.update(len(places))
    return scores


def batches_of_like_length(
    prompts: Sequence[Tokens], continuations: Sequence[Tokens], batch_size: int
) -> Iterator[list[int]]:
    """Yield batches of positions, the longest first, so that what does not fit into memory fails at once."""
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), -len(continuations[i])))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def score_batch(
    model: PreTrainedModel,
    prompts: Sequence[Tokens],
    continuations: Sequence[Tokens],
    mask_token_id: int,
    image_embeds: Tensor | None,
) -> list[tuple[float, bool]]:
    """Score one batch by one forward pass; see `score_continuations`."""
    text_config = model.config.text_config
    begins = [known_beginning(prompt, mask_token_id) for prompt in prompts]
    start, pad = text_config.decoder_start_token_id, text_config.pad_token_id
    written = [[start, *begin, *text[:-1]] for begin, text in zip(begins, continuations)]
    input_ids = pad_right(prompts, pad, model.device)  # (batch, length)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
    attention_mask = torch.arange(input_ids.shape[1], device=model.device) < lengths[:, None]
    first, last = min(map(len, begins)), max(map(len, written))
    logits = model(
        input_ids=input_ids,
        attention_mask=attention_mask.long(),
        image_embeds=image_embeds,
        decoder_input_ids=pad_right(written, pad, model.device),  # the decoder looks back only: no mask is needed
        use_cache=False,
        logits_to_keep=torch.arange(first, last, device=model.device),  # a vocabulary is large: not of the beginnings
    ).logits  # (batch, last - first, vocabulary)
    found = []
    for row, begin, text in zip(logits, begins, continuations):
        place = len(begin) - first
        log_probabilities = row[place : place + len(text)].float().log_softmax(dim=-1)  # (tokens, vocabulary)
        targets = torch.tensor(text, device=model.device)
        score = log_probabilities.gather(1, targets[:, None]).sum().item()
        found.append((score, bool((log_probabilities.argmax(dim=-1) == targets).all())))
    return found


def pad_right(texts: Sequence[Tokens], pad_token_id: int, device: torch.device) -> Tensor:
    rows = [torch.tensor(list(text)) for text in texts]
    return pad_sequence(rows, batch_first=True, padding_value=pad_token_id).to(device)
