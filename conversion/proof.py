"""Proves a conversion: the original code with the original weights and the new checkpoint get the same inputs."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor

from .errors import ConversionError
from .sources import Reference


# Relative to the largest value. One operation in fp32 rounds by about 1e-7, and a tower adds up many of them.
EMBEDDING_LIMIT = 1e-5
# In units of the normalized pixels. One of the 256 gray levels is about 0.015: 1 / 255, divided by CLIP's deviation of
# about 0.27. So a resized pixel may be rounded to the next gray level, but not to one farther away.
PIXEL_LIMIT = 0.02
PICTURE_SIZES = ((301, 227), (640, 480), (97, 150))  # odd and even, larger and smaller than what a tower sees
SENTENCES = (
    "a photo of a cat",
    "Two dogs, one of them brown, run over the green grass!",
    "What colour is the bicycle at the far end of the street?",
)


@dataclass(frozen=True)
class Check:
    """One measured difference.

    subject: what was compared.
    against: the library whose result it was compared with.
    difference: the largest difference that was found.
    limit: the largest difference that is allowed.
    """

    subject: str
    against: str
    difference: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.limit  # False if the difference is nan


@dataclass
class VisionProbe:
    """What the original vision tower makes of the probe pictures.

    pixels: `(pictures, 3, height, width)`, prepared by the original preprocessing.
    embeds: `(pictures, dim)`.
    library: the name of the library that computed them.
    """

    pixels: Tensor
    embeds: Tensor
    library: str


@dataclass
class TextProbe:
    """What a text tower makes of random tokens, and its tokenizer of the probe sentences.

    ids: `(texts, length)`, the random tokens.
    embeds: `(texts, dim)`, of the random tokens.
    tokens: the ids of each sentence; None if there is no tokenizer.
    library: the name of the library that computed them.
    """

    ids: Tensor
    embeds: Tensor
    tokens: list[list[int]] | None
    library: str


@dataclass
class LanguageProbe:
    """What the original BART makes of random tokens.

    ids, decoder_ids: `(texts, length)`.
    logits: `(texts, length, vocabulary)`.
    """

    ids: Tensor
    decoder_ids: Tensor
    logits: Tensor


def relative_difference(value: Tensor, expected: Tensor) -> float:
    """Compute the largest difference, relative to the largest expected value; nan if the shapes differ."""
    if value.shape != expected.shape:
        return float("nan")
    return ((value - expected).abs().max() / expected.abs().max()).item()


def probe_pictures() -> list[Image.Image]:
    """Make the probe pictures, always the same: smooth patches of color with noise on top."""
    random = np.random.default_rng(0)
    pictures = []
    for width, height in PICTURE_SIZES:
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        noise = random.integers(-40, 41, (height, width, 3))
        pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int64) + noise
        pictures.append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    return pictures


def probe_ids(vocab_size: int, length: int, end: int, seed: int = 0) -> Tensor:
    """Make two rows of random tokens with the token `end`: the first row at its end, the second in the middle.

    In the second row, copies of its first token follow `end`. A causal tower pools at `end`, so they must not change
    its result.

    Args:
        vocab_size: the number of tokens.
        length: the number of tokens in a row.
        end: the id of the end of text. CLIP's is among the highest, and only ids below it are drawn. BART's is 2, and
            ids above it are drawn.
        seed: of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    limit = min(end, vocab_size) if end > 3 else vocab_size
    ids = torch.randint(3, limit, (2, length), generator=generator)  # from 3: <s>, <pad> and </s> of BART come before
    ids[0, -1] = ids[1, length // 2] = end
    ids[1, length // 2 + 1 :] = ids[1, 0]
    return ids


@torch.no_grad()
def probe_vision(reference: Reference) -> VisionProbe:
    """Run the original vision tower on the probe pictures."""
    pixels = torch.stack([reference.prepare(picture) for picture in probe_pictures()]).float()
    # One picture at a time, because the activations of a large ResNet for several take more memory than its weights.
    embeds = torch.cat([reference.encode(each) for each in pixels.split(1)])
    return VisionProbe(pixels, embeds.float(), reference.library)


@torch.no_grad()
def probe_text(reference: Reference, ids: Tensor, has_tokenizer: bool) -> TextProbe:
    """Run the original text tower on tokens, and its tokenizer on the probe sentences."""
    tokens = [trim(reference.prepare(sentence).tolist()) for sentence in SENTENCES] if has_tokenizer else None
    return TextProbe(ids, reference.encode(ids).float(), tokens, reference.library)


@torch.no_grad()
def probe_language(model: PreTrainedModel) -> LanguageProbe:
    """Run the original BART on random tokens, with its own encoder's states as the decoder's memory."""
    length = min(16, model.config.max_position_embeddings)  # 16: a short text, so that the logits stay small
    ids, decoder_ids = (probe_ids(model.config.vocab_size, length, model.config.eos_token_id, seed) for seed in (1, 2))
    logits = model(input_ids=ids, decoder_input_ids=decoder_ids, use_cache=False).logits
    return LanguageProbe(ids, decoder_ids, logits)


def trim(ids: list[int]) -> list[int]:
    """Cut off the padding, so that texts of two tokenizers can be compared.

    Some tokenizers pad with the end of text, so equal tokens at the end become one: [5, 9, 9, 9] becomes [5, 9].
    open_clip's own pads with 0, so a 0 that then is last is removed: [5, 9, 0, 0] becomes [5, 9].
    """
    while len(ids) > 1 and ids[-1] == ids[-2]:
        ids = ids[:-1]
    return ids[:-1] if len(ids) > 1 and ids[-1] == 0 else ids


@torch.no_grad()
def probe_teacher(teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, ids: Tensor) -> TextProbe:
    """Run the converted text tower on tokens, and its tokenizer on the probe sentences."""
    output = teacher(input_ids=ids)
    embeds = output.text_embeds if "text_embeds" in output else output.pooler_output
    tokens = None
    if tokenizer is not None:
        tokens = [trim(tokenizer(sentence, truncation=True)["input_ids"]) for sentence in SENTENCES]
    return TextProbe(ids, embeds, tokens, "transformers")


def check_teacher(original: TextProbe, converted: TextProbe) -> list[Check]:
    """Compare a converted text tower and its tokenizer with the originals."""
    difference = relative_difference(converted.embeds, original.embeds)
    checks = [Check("text embeddings, relative", original.library, difference, EMBEDDING_LIMIT)]
    if original.tokens is not None and converted.tokens is not None:
        wrong = sum(ours != theirs for ours, theirs in zip(converted.tokens, original.tokens, strict=True))
        checks.append(Check("sentences tokenized otherwise", original.library, wrong, 0))
    return checks


@torch.no_grad()
def check_checkpoint(
    model: VLKDForConditionalGeneration, processor: VLKDProcessor, vision: VisionProbe, language: LanguageProbe
) -> list[Check]:
    """Compare a checkpoint that was written and loaded again with both originals."""
    embeds = torch.cat([model.get_image_features(pixel_values=each).pooler_output for each in vision.pixels.split(1)])
    pixels = processor(images=probe_pictures(), return_tensors="pt")["pixel_values"]
    same_shape = pixels.shape == vision.pixels.shape
    bart = model.model.language_model
    states = bart(input_ids=language.ids, decoder_input_ids=language.decoder_ids, use_cache=False).last_hidden_state
    logits = model.lm_head(states) + model.final_logits_bias
    pixel_difference = (pixels - vision.pixels).abs().max().item() if same_shape else float("nan")
    return [
        Check(
            "image embeddings, relative", vision.library, relative_difference(embeds, vision.embeds), EMBEDDING_LIMIT
        ),
        Check("pixels after preprocessing", vision.library, pixel_difference, PIXEL_LIMIT),
        Check("BART's logits", "transformers", (logits - language.logits).abs().max().item(), 0.0),
    ]


def refuse_failures(checks: list[Check]):
    """Raise ConversionError if a difference is larger than its limit."""
    for check in checks:
        if not check.passed:
            raise ConversionError(
                f"The conversion is not exact: {check.subject} differ from {check.against} by {check.difference:.3g}, "
                f"allowed are {check.limit:g}; nothing was written."
            )
