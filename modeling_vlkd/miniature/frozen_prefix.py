"""Frozen in miniature (Tsimpoukelli et al., arXiv:2106.13884): a picture as a prefix to a frozen language model.

A vision tower is trained through the language model, of which no weight changes: its output becomes `PREFIX`
embeddings that stand before the embedded text. The published system has a decoder-only model and a tower that starts
at random. Here the language model is the BART that VLKD has, whose encoder reads prefix and prompt; and the tower
starts as VLKD's CLIP, because the miniature's budget would teach a random one nothing. Training shows what the
published one is shown, pictures and their captions; the targets are caption prompts and their fillings.
"""

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import BartForConditionalGeneration, get_linear_schedule_with_warmup
from transformers.modeling_outputs import BaseModelOutput

from modeling_vlkd import VLKDProcessor
from modeling_vlkd.evaluation.protocol import Answer, Caption
from modeling_vlkd.generation_vlkd import batches_of_equal_length

from .clip_teacher import normalize
from .distilling import BATCH_SIZE, CAPTION_MASKS, CaptionedPictures, Teachers, assemble
from .world import Split


# Chosen on validation pictures. The published system has two embeddings, with which captions were much worse here.
PREFIX = 4
LEARNING_RATE, PREFIX_LEARNING_RATE = 1e-3, 1e-2  # of the tower, and of the matrix
WARMUP_SHARE, WEIGHT_DECAY, MAX_NORM = 0.1, 0.01, 1.0
PREFIX_RECIPE = {
    "prefix": PREFIX,
    "learning_rate": LEARNING_RATE,
    "prefix_learning_rate": PREFIX_LEARNING_RATE,
    "warmup_steps": WARMUP_SHARE,
    "weight_decay": WEIGHT_DECAY,
    "max_grad_norm": MAX_NORM,
}
NEW_TOKENS, DECODED_AT_ONCE = 16, 256


class FrozenPrefix(nn.Module):
    """A vision tower, a matrix to a prefix, and a frozen BART; it answers and captions as a `VisionLanguageModel`."""

    def __init__(self, teachers: Teachers):
        super().__init__()
        vlkd, self.processor = assemble(teachers)
        self.clip_processor = teachers.clip_processor
        self.tower = vlkd.model.vision_tower.requires_grad_(True)
        self.bart = BartForConditionalGeneration.from_pretrained(teachers.bart_folder).requires_grad_(False)
        self.width = self.bart.config.d_model
        self.to_prefix = nn.Linear(self.tower.config.projection_dim, PREFIX * self.width)
        self.eval()

    def train(self, mode: bool = True) -> "FrozenPrefix":
        super().train(mode)
        self.bart.eval()
        return self

    def look(self, images: np.ndarray) -> Tensor:
        """Turn pictures, `(pictures, 64, 64, 3)`, into prefixes, `(pictures, PREFIX, d_model)`."""
        with torch.no_grad():
            parts = [images[first : first + DECODED_AT_ONCE] for first in range(0, len(images), DECODED_AT_ONCE)]
            return torch.cat([self.prefix(normalize(part, self.clip_processor)) for part in parts])

    def prefix(self, pixel_values: Tensor) -> Tensor:
        """Compute the prefixes of preprocessed pictures: `(batch, PREFIX, d_model)`."""
        embeds = self.tower(pixel_values=pixel_values).image_embeds  # (batch, dim)
        return self.to_prefix(embeds).view(len(embeds), PREFIX, self.width)

    def read(self, prompts: Sequence[str], prefix: Tensor | None) -> tuple[BaseModelOutput, Tensor]:
        """Encode prefixes and prompts together; return the encoder's states and their mask."""
        encoder = self.bart.get_encoder()
        inputs = self.processor.tokenizer(list(prompts), padding=True, return_tensors="pt")
        embeds, mask = encoder.embed_tokens(inputs.input_ids), inputs.attention_mask
        if prefix is not None:
            embeds = torch.cat([prefix, embeds], dim=1)  # (batch, PREFIX + length, d_model)
            mask = torch.cat([mask.new_ones(len(mask), PREFIX), mask], dim=1)
        return encoder(inputs_embeds=embeds, attention_mask=mask), mask

    def forward(self, pixel_values: Tensor, prompts: Sequence[str], targets: Sequence[str]) -> Tensor:
        """Compute the cross-entropy of the targets, a mean over tokens."""
        states, mask = self.read(prompts, self.prefix(pixel_values))
        target = self.processor.tokenizer(list(targets), padding=True, return_tensors="pt")
        labels = target.input_ids.masked_fill(target.attention_mask == 0, -100)
        return self.bart(encoder_outputs=states, attention_mask=mask, labels=labels).loss

    @torch.no_grad()
    def write(self, prompts: Sequence[str], prefix: Tensor | None, index: Sequence[int]) -> list[str]:
        """Fill prompts greedily, each after the known beginning of its text.

        Args:
            prefix: of all pictures, or None.
            index: for each prompt, which picture it is about.
        """
        tokenizer, written = self.processor.tokenizer, [""] * len(prompts)
        known = [ids[: ids.index(tokenizer.mask_token_id)] for ids in tokenizer(list(prompts)).input_ids]
        for places in batches_of_equal_length([len(ids) for ids in known], DECODED_AT_ONCE):
            chosen = None if prefix is None else prefix[[index[place] for place in places]]
            states, mask = self.read([prompts[place] for place in places], chosen)
            start = torch.tensor([[self.bart.config.decoder_start_token_id, *known[place]] for place in places])
            texts = self.bart.generate(
                encoder_outputs=states, attention_mask=mask, decoder_input_ids=start, max_new_tokens=NEW_TOKENS
            )
            for place, text in zip(places, tokenizer.batch_decode(texts, skip_special_tokens=True)):
                written[place] = text
        return written

    def answer(
        self, images: np.ndarray | Tensor | None, questions: Sequence[str], image_index: Sequence[int] | None = None
    ) -> list[Answer]:
        """Answer questions about pictures or, with None, from the text alone."""
        prefix = self.look(images) if isinstance(images, np.ndarray) else images
        index = range(len(questions)) if image_index is None else image_index
        texts = self.write(self.processor.question_prompts(questions), prefix, index)
        return [Answer(text) for text in self.processor.extract_answers(texts)]

    def caption(self, images: np.ndarray | Tensor) -> list[Caption]:
        prefix = self.look(images) if isinstance(images, np.ndarray) else images
        texts = self.write(self.processor.caption_prompts(len(prefix)), prefix, range(len(prefix)))
        return [Caption(text) for text in self.processor.extract_captions(texts)]


def train_frozen_prefix(teachers: Teachers, train: Split, steps: int, seed: int) -> FrozenPrefix:
    """Train on as many pairs, in as many steps, as a distillation of the same number of steps."""
    torch.manual_seed(seed)
    rng, model = random.Random(seed), FrozenPrefix(teachers)
    pairs = CaptionedPictures(teachers, train, steps * BATCH_SIZE, seed, keep_pixels=True)
    groups = [{"params": model.tower.parameters(), "lr": LEARNING_RATE}]
    groups.append({"params": model.to_prefix.parameters(), "lr": PREFIX_LEARNING_RATE})
    optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)
    schedule = get_linear_schedule_with_warmup(optimizer, round(WARMUP_SHARE * steps), steps)
    model.train()
    for step in tqdm(range(steps), desc="Frozen-style prefix", unit="step"):
        batch = [pairs[place] for place in range(step * BATCH_SIZE, (step + 1) * BATCH_SIZE)]
        pixels = torch.stack(
            [each["pixel_values"].flip(-1) if rng.random() < 0.5 else each["pixel_values"] for each in batch]
        )
        targets = model.processor.filled_captions([each["caption"] for each in batch])
        prompts = caption_prompts(model.processor, len(batch), rng)
        loss = model(pixels, prompts, targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        schedule.step()
    return model.eval()


def caption_prompts(processor: VLKDProcessor, count: int, rng: random.Random) -> list[str]:
    """Make caption prompts with one to twice as many masks as are asked for later."""
    return [processor.caption_prompts(1, rng.randint(1, 2 * CAPTION_MASKS))[0] for _ in range(count)]
