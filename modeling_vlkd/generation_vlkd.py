"""Generate answers and captions for many prompts at once; the pipelines, the commands and evaluation call this."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from .processing_vlkd import VLKDProcessor


def generate_answers(
    model: PreTrainedModel,
    processor: VLKDProcessor,
    questions: Sequence[str],
    image_embeds: Tensor | None = None,
    image_index: Sequence[int] | None = None,
    num_masks: int | None = None,
    top_k: int = 1,
    batch_size: int = 64,
    **generate_kwargs: Any,
) -> list[list[dict[str, Any]]]:
    """Answer questions about images whose rows are known: one vision pass serves any number of questions.

    Args:
        model: a `VLKDForConditionalGeneration`.
        questions: any wording, any mixture of lengths.
        image_embeds: `(images, rows, projection_dim)`, from `model.get_image_rows`. Without it, the model sees only
            the texts.
        image_index: for each question, which image it is about. By default, question i is about image i.
        num_masks: masks in each prompt. By default, as many as the processor says.
        top_k: how many different answers to look for. More than one are searched with at least `2 * top_k` beams and
            ranked by probability alone, whatever their lengths (`length_penalty=0`).
        batch_size: questions decoded at once.
        generate_kwargs: for `model.generate`; they win over the checkpoint's own `generation_config`. With
            `num_return_sequences=n`, n answers are returned as they were written, even if some are equal.

    Returns:
        For each question, at most `top_k` times `{"answer": str, "score": float}`, best first, where the score is the
        probability that the model gives to the answer: the product over its tokens, end of text included.
    """
    prompts = processor.question_prompts(questions, num_masks)
    index = rows_of_images(image_embeds, image_index, len(questions))
    texts = generate_texts(model, processor, prompts, image_embeds, index, top_k, batch_size, **generate_kwargs)
    different = None if "num_return_sequences" in generate_kwargs else top_k
    return [name_texts("answer", processor.extract_answers, each, different) for each in texts]


def generate_captions(
    model: PreTrainedModel,
    processor: VLKDProcessor,
    image_embeds: Tensor,
    num_masks: int | None = None,
    top_k: int = 1,
    batch_size: int = 64,
    **generate_kwargs: Any,
) -> list[list[dict[str, Any]]]:
    """Caption images whose rows are known; see `generate_answers` for the arguments.

    Returns:
        For each image, at most `top_k` times `{"caption": str, "score": float}`, best first.
    """
    count = image_embeds.shape[0]
    prompts, index = processor.caption_prompts(count, num_masks), torch.arange(count)
    texts = generate_texts(model, processor, prompts, image_embeds, index, top_k, batch_size, **generate_kwargs)
    different = None if "num_return_sequences" in generate_kwargs else top_k
    return [name_texts("caption", processor.extract_captions, each, different) for each in texts]


def name_texts(
    name: str, extract: Callable[[list[str]], list[str]], scored: list[tuple[str, float]], top_k: int | None
) -> list[dict[str, Any]]:
    """Extract the answers or captions from scored texts and sort them, best first.

    With `top_k=None`, every text gives one entry. With a number, at most `top_k` different entries are kept; empty
    ones are left out, unless all are empty.
    """
    said = list(zip(extract([text for text, _ in scored]), (score for _, score in scored)))
    if top_k is not None:
        best: dict[str, float] = {}
        for words, score in said:
            best[words] = max(score, best.get(words, 0.0))
        said = [item for item in best.items() if item[0]] or list(best.items())
    ranked = sorted(said, key=lambda item: -item[1])
    return [{name: words, "score": score} for words, score in ranked[:top_k]]


def rows_of_images(image_embeds: Tensor | None, image_index: Sequence[int] | None, count: int) -> Tensor | None:
    """Return the index of the image for each of `count` questions, `(count,)`, or None if there are no images."""
    if image_embeds is None:
        return None
    if image_index is None:
        image_index = range(image_embeds.shape[0])
    if len(image_index) != count:
        raise ValueError(f"Expected one image per question, got {len(image_index)} images and {count} questions.")
    return torch.as_tensor(image_index, dtype=torch.long)


def batches_of_equal_length(lengths: Sequence[int], batch_size: int) -> Iterable[list[int]]:
    """Yield batches of positions; within a batch, all known beginnings have one length, so they are read together."""
    by_length = defaultdict(list)
    for position, length in enumerate(lengths):
        by_length[length].append(position)
    for positions in by_length.values():
        for start in range(0, len(positions), batch_size):
            yield positions[start : start + batch_size]


def generation_settings(
    model: PreTrainedModel, processor: VLKDProcessor, top_k: int, generate_kwargs: dict[str, Any]
) -> tuple[GenerationConfig, dict[str, Any]]:
    """Merge the checkpoint's generation config and the caller's settings; also return the arguments for `forward`.

    Everything goes into one configuration, because `generate()` deprecates a `generation_config` together with other
    generation arguments.
    """
    most = model.config.text_config.vocab_size // 2  # 2 * top_k beams start with as many different tokens
    if not 1 <= top_k <= most:
        raise ValueError(f"top_k={top_k}: ask for at least one text, and for at most {most} (half the vocabulary).")
    if top_k > 1 and "num_return_sequences" in generate_kwargs:
        raise ValueError(
            "Got top_k and num_return_sequences: give top_k for different texts, or num_return_sequences for all that "
            "are written."
        )
    settings = deepcopy(generate_kwargs.pop("generation_config", None) or model.generation_config)
    if generate_kwargs.get("do_sample") or (settings.do_sample and settings.num_beams is None):
        # The checkpoint's beams are meant to find the one best text. Samples from a beam search would be nearly equal.
        generate_kwargs.setdefault("num_beams", 1)
    settings.update(**model.generation_config.to_dict(), defaults_only=True, allow_custom_entries=True)
    if settings.to_dict().get("mask_token_id") is None:  # an old checkpoint, or a model that was assembled by hand
        settings.mask_token_id = processor.tokenizer.mask_token_id
    if settings.to_dict().get("force_prefix") is None:
        settings.force_prefix = True
    if top_k > 1:
        # Some beams are the same text in other tokens, so twice as many are needed to find top_k different ones.
        beams = max(generate_kwargs.get("num_beams") or settings.num_beams or 1, 2 * top_k)
        generate_kwargs = {"length_penalty": 0.0, **generate_kwargs, "num_beams": beams, "num_return_sequences": beams}
    others = settings.update(**generate_kwargs, return_dict_in_generate=True, output_scores=True)
    return settings, others


def generate_texts(
    model: PreTrainedModel,
    processor: VLKDProcessor,
    prompts: Sequence[str],
    image_embeds: Tensor | None,
    image_index: Tensor | None,
    top_k: int,
    batch_size: int,
    **generate_kwargs: Any,
) -> list[list[tuple[str, float]]]:
    """Fill prompts by `model.generate`; a text's score is the probability of its tokens that were not forced.

    Args:
        image_embeds, image_index: `(images, rows, projection_dim)`, and for each prompt the index of its image. The
            rows are gathered batch by batch, because the rows of all prompts at once may not fit into memory.

    Returns:
        For each prompt, in order, pairs of a text and its score: one, or for `top_k > 1` as many as there are beams.
    """
    tokenizer = processor.tokenizer
    settings, others = generation_settings(model, processor, top_k, dict(generate_kwargs))
    count = settings.num_return_sequences or 1
    known = [0] * len(prompts)
    if settings.force_prefix and prompts:
        known = [ids.index(tokenizer.mask_token_id) for ids in tokenizer(list(prompts), verbose=False)["input_ids"]]
    results: list[list[tuple[str, float]]] = [[] for _ in prompts]
    for positions in batches_of_equal_length(known, batch_size):
        inputs = processor(text=[prompts[position] for position in positions], return_tensors="pt").to(model.device)
        if image_embeds is not None and image_index is not None:
            inputs["image_embeds"] = image_embeds[image_index[positions].to(image_embeds.device)].to(model.device)
        output = model.generate(**inputs, **others, generation_config=settings)
        texts = tokenizer.batch_decode(output.sequences, skip_special_tokens=True)
        scores = sequence_probabilities(model, output, tokenizer.pad_token_id).tolist()
        for place, position in enumerate(positions):
            results[position] = list(zip(texts, scores))[place * count : (place + 1) * count]
    return results


def sequence_probabilities(model: PreTrainedModel, output: Any, pad_token_id: int) -> Tensor:
    """Compute the probability of each generated sequence, `(sequences,)`, without its forced beginning."""
    beam_indices = output.get("beam_indices")
    log_probabilities = model.compute_transition_scores(
        output.sequences, output.scores, beam_indices, normalize_logits=beam_indices is None
    )  # (sequences, new tokens)
    new_tokens = output.sequences[:, -log_probabilities.shape[1] :]
    return log_probabilities.masked_fill(new_tokens == pad_token_id, 0.0).sum(dim=1).exp()
