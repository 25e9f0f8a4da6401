"""Score a distilled miniature on the official test questions and pictures, and the baselines it has to beat."""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPModel, CLIPProcessor

from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor
from modeling_vlkd.evaluation.caption_metrics import score_captions
from modeling_vlkd.evaluation.caption_tokenizers import PYTHON_TOKENIZER
from modeling_vlkd.evaluation.metrics import balanced_exact_match, exact_match
from modeling_vlkd.evaluation.protocol import Answer, Caption
from modeling_vlkd.evaluation.vlkd_model import VLKDAdapter

from .clip_teacher import CLASSES, embed_images, embed_texts
from .corpus import reading_probe
from .world import Scene, Split, parse_question


BATCH_SIZE = 256
CLASS_CAPTIONS = [f"A picture of a {scene.color} {scene.shape}." for scene in CLASSES]


class Writer(Protocol):
    """What of a [`VisionLanguageModel`] is scored here of any model."""

    def answer(self, images: Any, questions: Sequence[str], image_index: Sequence[int] | None = None) -> list[Answer]:
        """Answer questions about pictures or, with None, from the text alone."""

    def caption(self, images: Any) -> list[Caption]:
        """Caption pictures."""


@dataclass
class Predictions:
    """A model's answer to each question of a split, and its caption of each picture."""

    answers: list[Answer]
    captions: list[Caption]


def score_model(
    model: VLKDForConditionalGeneration, processor: VLKDProcessor, split: Split, image_embeds: Tensor
) -> tuple[dict[str, float], Predictions]:
    """Score answers, captions, retrieval and reading, with the checkpoint's own decoding.

    Args:
        image_embeds: `(pictures, rows, dim)`.
    """
    started, adapter = time.perf_counter(), VLKDAdapter(model, processor, BATCH_SIZE)
    scores, predictions = score_writing(adapter, split, image_embeds)
    scores |= retrieval(split.scenes, adapter.embed_images(image_embeds), adapter.embed_texts(CLASS_CAPTIONS))
    scores["text_after"] = score_probe(adapter)
    return scores | {"scoring_seconds": time.perf_counter() - started}, predictions


def score_writing(model: Writer, split: Split, images: Any) -> tuple[dict[str, float], Predictions]:
    """Score the answers and captions of any model.

    The questions are also asked without a picture (`blind`) and with another picture (`shuffled`).

    Args:
        images: the pictures of the split, as the model takes them.
    """
    answers = model.answer(images, split.questions, split.image_index)
    captions = model.caption(images)
    scores = score_answers(split, [answer.text for answer in answers])
    exchanged = np.random.default_rng(0).permutation(len(split.images))[split.image_index].tolist()
    shuffled = model.answer(images, split.questions, exchanged)
    scores["blind"] = exact_match(ask_blind(model, split.questions), split.answers)
    scores["shuffled"] = exact_match([answer.text for answer in shuffled], split.answers)
    scores["caption"] = caption_accuracy(split.scenes, [caption.text for caption in captions])
    return scores, Predictions(answers, captions)


def ask_blind(model: Writer, questions: Sequence[str]) -> list[str]:
    """Answer without a picture. Equal questions get equal answers then, so each is asked only once."""
    distinct = sorted(set(questions))
    found = {question: answer.text for question, answer in zip(distinct, model.answer(None, distinct))}
    return [found[question] for question in questions]


def score_answers(split: Split, answers: Sequence[str]) -> dict[str, float]:
    """Compute the share of right answers: overall, by kind, and on trained and held-out templates.

    The score of yes/no questions is balanced: the mean over {plain, negated} x {yes, no}, because some of these four
    are much more frequent than others.
    """
    asked = [parse_question(text) for text in split.questions]

    def part(kept: Sequence[bool]) -> tuple[tuple[str, ...], ...]:
        """Select the answers, truths and kinds of some questions."""
        rows = zip(answers, split.answers, asked, kept)
        return tuple(zip(*[(answer, truth, question.kind) for answer, truth, question, keep in rows if keep]))

    def share(kept: Sequence[bool]) -> float:
        return exact_match(*part(kept)[:2])

    def balanced(about: str) -> float:
        found, truths, kinds = part([question.kind in (f"yes_no_{about}", f"no_yes_{about}") for question in asked])
        return balanced_exact_match(found, truths, groups=list(zip(kinds, truths)))

    return {
        "overall": exact_match(answers, split.answers),
        "shape": share([question.kind == "shape" for question in asked]),
        "colour": share([question.kind == "color" for question in asked]),
        "yes_no_colour": balanced("color"),
        "yes_no_shape": balanced("shape"),
        "trained_templates": share([not question.held_out for question in asked]),
        "heldout_templates": share([question.held_out for question in asked]),
    }


def caption_accuracy(scenes: Sequence[Scene], captions: Sequence[str]) -> float:
    """Compute the share of captions that are, word for word, a true caption of their picture."""
    true = [{without_prefix(text) for text in scene.captions()} for scene in scenes]
    return float(np.mean([caption in texts for caption, texts in zip(captions, true)]))


def without_prefix(caption: str) -> str:
    """Take from a caption what the prompt says anyway, and the period."""
    return caption.removeprefix("A picture of").strip().removesuffix(".")


def retrieval(scenes: Sequence[Scene], images: Tensor, texts: Tensor) -> dict[str, float]:
    """Compute R@1 in both directions: of each picture among the 24 captions, and of each caption among all pictures.

    Args:
        images: `(pictures, dim)`.
        texts: `(24, dim)`.
    """
    true = torch.tensor([CLASSES.index(Scene(scene.color, scene.shape)) for scene in scenes])
    similarity = normalize(images, dim=-1) @ normalize(texts, dim=-1).T  # (pictures, 24)
    picture_to_text = (similarity.argmax(dim=1) == true).float().mean().item()
    text_to_picture = (true[similarity.argmax(dim=0)] == torch.arange(len(texts))).float().mean().item()
    return {"retrieval_i2t": picture_to_text, "retrieval_t2i": text_to_picture}


def score_reading(model: VLKDForConditionalGeneration, processor: VLKDProcessor) -> float:
    """Compute the share of right answers to questions about a passage, from text alone."""
    return score_probe(VLKDAdapter(model, processor, BATCH_SIZE))


def score_probe(model: Writer) -> float:
    """Compute what `score_reading` does, of any model."""
    questions, answers = reading_probe()
    return exact_match([answer.text for answer in model.answer(None, questions)], answers)


def score_cider(scenes: Sequence[Scene], captions: Sequence[str]) -> float:
    """Compute CIDEr-D of captions against all true captions of their pictures, from 0 to 10."""
    true = {place: [without_prefix(text) for text in scene.captions()] for place, scene in enumerate(scenes)}
    return score_captions(dict(enumerate(captions)), true, PYTHON_TOKENIZER).overall["CIDEr"]


def score_baselines(train: Split, split: Split, clip: CLIPModel, clip_processor: CLIPProcessor) -> dict[str, float]:
    """Score what needs no distilled model.

    These are the commonest answer, the commonest answer to each question, and retrieval by CLIP alone.
    """
    [(commonest, _)] = Counter(train.answers).most_common(1)
    by_question: dict[str, Counter] = defaultdict(Counter)
    for question, answer in zip(train.questions, train.answers):
        by_question[question][answer] += 1
    rule = [by_question[text].most_common(1)[0][0] if text in by_question else commonest for text in split.questions]
    own = retrieval(
        split.scenes,
        embed_images(clip, clip_processor, split.images),
        embed_texts(clip, clip_processor.tokenizer, CLASS_CAPTIONS),
    )
    return {
        "majority": exact_match([commonest] * len(split.answers), split.answers),
        "question_only": exact_match(rule, split.answers),
        **{f"clip_{name}": value for name, value in own.items()},
    }
