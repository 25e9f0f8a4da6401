"""Answers and captions for many prompts at once: what the pipelines, the command line and evaluation all call."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .processing_vlkd import CAPTION_PREFIX, VLKDProcessor


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
    """Answers questions about images whose rows are known: one vision pass serves any number of questions.

    Args:
        model: a `VLKDForConditionalGeneration`.
        questions: any wording, any mixture of lengths.
        image_embeds: `(images, rows, projection_dim)`, from `model.get_image_rows`; without it, text alone answers.
        image_index: for each question, which image it is about. Defaults to question i about image i.
        num_masks: masks in each prompt; the processor's default where None.
        top_k: how many different answers to look for, by `2 * top_k` beams and by probability alone, however long they
            are (`length_penalty=0`).
        batch_size: questions decoded at once.
        generate_kwargs: for `model.generate`, over the checkpoint's own `generation_config`.

    Returns:
        For each question, at most `top_k` times `{"answer": str, "score": float}`, best first, where the score is the
        probability that the model gives to the answer: the product over its tokens, end of text included.
    """
    prompts = processor.question_prompts(questions, num_masks)
    prefixes = processor.question_prefixes(questions) if processor.force_prefix else [""] * len(questions)
    if image_embeds is not None:
        image_embeds = image_embeds[rows_of_images(image_embeds, image_index, len(questions))]
    texts = generate_texts(model, processor, prompts, prefixes, image_embeds, top_k, batch_size, **generate_kwargs)
    return [best_distinct("answer", processor.extract_answers, each, top_k) for each in texts]


def generate_captions(
    model: PreTrainedModel,
    processor: VLKDProcessor,
    image_embeds: Tensor,
    num_masks: int | None = None,
    top_k: int = 1,
    batch_size: int = 64,
    **generate_kwargs: Any,
) -> list[list[dict[str, Any]]]:
    """Captions images whose rows are known; see `generate_answers`.

    Returns:
        For each image, at most `top_k` times `{"caption": str, "score": float}`, best first.
    """
    prompts = processor.caption_prompts(len(image_embeds), num_masks)
    prefixes = [CAPTION_PREFIX if processor.force_prefix else ""] * len(image_embeds)
    texts = generate_texts(model, processor, prompts, prefixes, image_embeds, top_k, batch_size, **generate_kwargs)
    return [best_distinct("caption", processor.extract_captions, each, top_k) for each in texts]


def best_distinct(
    name: str, extract: Callable[[list[str]], list[str]], scored: list[tuple[str, float]], top_k: int
) -> list[dict[str, Any]]:
    """Takes what is said out of scored texts, each with its best score, and of these the best `top_k`."""
    best: dict[str, float] = {}
    for said, (_, score) in zip(extract([text for text, _ in scored]), scored):
        best[said] = max(score, best.get(said, 0.0))
    ranked = sorted(best.items(), key=lambda item: -item[1])
    return [{name: said, "score": score} for said, score in ranked[:top_k]]


def rows_of_images(image_embeds: Tensor, image_index: Sequence[int] | None, count: int) -> Tensor:
    """Checks and makes the index of an image for each of `count` questions."""
    if image_index is None:
        image_index = range(len(image_embeds))
    if len(image_index) != count:
        raise ValueError(f"Expected one image per question, got {len(image_index)} images and {count} questions.")
    return torch.tensor(list(image_index), dtype=torch.long, device=image_embeds.device)


def batches_of_equal_prefix(prefix_ids: Sequence[Sequence[int]], batch_size: int) -> Iterable[list[int]]:
    """Yields positions in batches whose prefixes have one length.

    A padded decoder prefix would shift BART's learned positions and change the answer, so lengths are never mixed.
    """
    by_length = defaultdict(list)
    for position, ids in enumerate(prefix_ids):
        by_length[len(ids)].append(position)
    for positions in by_length.values():
        for start in range(0, len(positions), batch_size):
            yield positions[start : start + batch_size]


@torch.no_grad()
def generate_texts(
    model: PreTrainedModel,
    processor: VLKDProcessor,
    prompts: Sequence[str],
    prefixes: Sequence[str],
    image_embeds: Tensor | None,
    top_k: int,
    batch_size: int,
    **generate_kwargs: Any,
) -> list[list[tuple[str, float]]]:
    """Fills prompts; each text begins with its prefix, and its score is the probability of the rest.

    Returns:
        For each prompt, in order, pairs of a text and its score: one, or for `top_k > 1` as many as there are beams.
    """
    tokenizer = processor.tokenizer
    start = [model.config.text_config.decoder_start_token_id, tokenizer("")["input_ids"][0]]  # <s>, or the language
    prefix_ids = [
        start + tokenizer(prefix, add_special_tokens=False)["input_ids"] if prefix else [] for prefix in prefixes
    ]
    # One whole configuration: `generate()` deprecates a given one beside other arguments.
    settings = deepcopy(generate_kwargs.pop("generation_config", model.generation_config))
    others = settings.update(**generate_kwargs, return_dict_in_generate=True, output_scores=True)
    count, most = 1, model.config.text_config.vocab_size // 2
    if not 1 <= top_k <= most:
        raise ValueError(f"top_k={top_k}: ask for at least one text, and for at most {most} (half the vocabulary).")
    if top_k > 1:
        count = max(settings.num_beams or 1, 2 * top_k)  # several of them say the same, in other tokens
        length_penalty = generate_kwargs.get("length_penalty", 0.0)
        settings.update(num_return_sequences=count, num_beams=count, length_penalty=length_penalty)
    results: list[list[tuple[str, float]]] = [[] for _ in prompts]
    for positions in batches_of_equal_prefix(prefix_ids, batch_size):
        inputs = processor(text=[prompts[position] for position in positions], return_tensors="pt").to(model.device)
        if image_embeds is not None:
            inputs["image_embeds"] = image_embeds[positions].to(model.device)
        if prefix_ids[positions[0]]:
            inputs["decoder_input_ids"] = torch.tensor([prefix_ids[p] for p in positions], device=model.device)
        output = model.generate(**inputs, **others, generation_config=settings)
        texts = tokenizer.batch_decode(output.sequences, skip_special_tokens=True)
        scores = sequence_probabilities(model, output, tokenizer.pad_token_id).tolist()
        for place, position in enumerate(positions):
            results[position] = list(zip(texts, scores))[place * count : (place + 1) * count]
    return results


def sequence_probabilities(model: PreTrainedModel, output: Any, pad_token_id: int) -> Tensor:
    """Gives the probability of each generated sequence, `(sequences,)`, without its forced beginning."""
    beam_indices = output.get("beam_indices")
    log_probabilities = model.compute_transition_scores(
        output.sequences, output.scores, beam_indices, normalize_logits=beam_indices is None
    )  # (sequences, new tokens)
    new_tokens = output.sequences[:, -log_probabilities.shape[1] :]
    return log_probabilities.masked_fill(new_tokens == pad_token_id, 0.0).sum(dim=1).exp()
