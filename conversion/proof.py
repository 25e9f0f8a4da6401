"""Proves a conversion: the original code with the original weights, and the new checkpoint, see the same inputs."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor

from .errors import ConversionError
from .sources import Reference


EMBEDDING_LIMIT = 1e-5  # of the largest value, in fp32
PIXEL_LIMIT = 0.02  # in units of the normalised pixels, where a grey level is about 0.015
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
    against: whose result it was compared with.
    difference: the largest one.
    limit: what is allowed.
    """

    subject: str
    against: str
    difference: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.limit  # False for nan, too


@dataclass
class VisionProbe:
    """What the original vision tower makes of the probe pictures.

    pixels: `(pictures, 3, height, width)`, prepared by the original preprocessing.
    embeds: `(pictures, dim)`.
    """

    pixels: Tensor
    embeds: Tensor
    library: str


@dataclass
class TextProbe:
    """What a text tower makes of random tokens, and its tokenizer of the probe sentences.

    ids: `(texts, length)`.
    embeds: `(texts, dim)`.
    tokens: ids of each sentence; None where there is no tokenizer.
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
    """The largest difference, in units of the largest expected value; nan where the shapes differ."""
    if value.shape != expected.shape:
        return float("nan")
    return ((value - expected).abs().max() / expected.abs().max()).item()


def probe_pictures() -> list[Image.Image]:
    """Makes pictures of coarse and fine patches, always the same ones."""
    random = np.random.default_rng(0)
    pictures = []
    for width, height in PICTURE_SIZES:
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        noise = random.integers(-40, 41, (height, width, 3))
        pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int64) + noise
        pictures.append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    return pictures


def probe_ids(vocab_size: int, length: int, end: int, seed: int = 0) -> Tensor:
    """Makes two rows of random tokens below `end`; each ends with it, the second one half-way.

    The rest of the second row repeats its first token, which a causal tower must not see.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, min(end, vocab_size) if end > 3 else vocab_size, (2, length), generator=generator)
    ids[0, -1] = ids[1, length // 2] = end
    ids[1, length // 2 + 1 :] = ids[1, 0]
    return ids


@torch.no_grad()
def probe_vision(reference: Reference) -> VisionProbe:
    """Runs the original vision tower on the probe pictures."""
    pixels = torch.stack([reference.prepare(picture) for picture in probe_pictures()]).float()
    embeds = torch.cat(
        [reference.encode(each) for each in pixels.split(1)]
    )  # a ResNet's activations outgrow its weights
    return VisionProbe(pixels, embeds.float(), reference.library)


@torch.no_grad()
def probe_text(reference: Reference, ids: Tensor, has_tokenizer: bool) -> TextProbe:
    """Runs the original text tower on tokens, and its tokenizer on the probe sentences."""
    tokens = [trim(reference.prepare(sentence).tolist()) for sentence in SENTENCES] if has_tokenizer else None
    return TextProbe(ids, reference.encode(ids).float(), tokens, reference.library)


@torch.no_grad()
def probe_language(model: PreTrainedModel) -> LanguageProbe:
    """Runs the original BART, encoder straight into decoder."""
    length = min(16, model.config.max_position_embeddings)
    ids, decoder_ids = (probe_ids(model.config.vocab_size, length, model.config.eos_token_id, seed) for seed in (1, 2))
    logits = model(input_ids=ids, decoder_input_ids=decoder_ids, use_cache=False).logits
    return LanguageProbe(ids, decoder_ids, logits)


def trim(ids: list[int]) -> list[int]:
    """Cuts the padding off: everything after the first repetition of the last token's run."""
    while len(ids) > 1 and ids[-1] == ids[-2]:
        ids = ids[:-1]
    return ids[:-1] if len(ids) > 1 and ids[-1] == 0 else ids


@torch.no_grad()
def probe_teacher(teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, ids: Tensor) -> TextProbe:
    """Runs the converted text tower on the same tokens, and its tokenizer on the probe sentences."""
    output = teacher(input_ids=ids)
    embeds = output.text_embeds if "text_embeds" in output else output.pooler_output
    tokens = None
    if tokenizer is not None:
        tokens = [trim(tokenizer(sentence, truncation=True)["input_ids"]) for sentence in SENTENCES]
    return TextProbe(ids, embeds, tokens, "transformers")


def check_teacher(original: TextProbe, converted: TextProbe) -> list[Check]:
    """Compares a converted text tower and its tokenizer with the originals."""
    difference = relative_difference(converted.embeds, original.embeds)
    checks = [Check("text embeddings, relative", original.library, difference, EMBEDDING_LIMIT)]
    if original.tokens is not None and converted.tokens is not None:
        wrong = sum(ours != theirs for ours, theirs in zip(converted.tokens, original.tokens, strict=True))
        checks.append(Check("sentences tokenised otherwise", original.library, wrong, 0))
    return checks


@torch.no_grad()
def check_checkpoint(
    model: VLKDForConditionalGeneration, processor: VLKDProcessor, vision: VisionProbe, language: LanguageProbe
) -> list[Check]:
    """Compares a written and reloaded checkpoint with both originals."""
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
    """Raises ConversionError if a difference is beyond its limit."""
    for check in checks:
        if not check.passed:
            raise ConversionError(
                f"The conversion is not exact: {check.subject} differ from {check.against} by {check.difference:.3g}, "
                f"allowed are {check.limit:g}; nothing was written."
            )
