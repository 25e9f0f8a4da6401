"""Train the miniature BART on text alone: infilling, and answers to questions about a passage.

Most passages are encoded apart from their question. The decoder gets the passage's `<s>` state beside the states of
the question, so it is the decoder that learns to compare the two; the encoder never sees both. A picture will enter
the decoder in the same way later.
"""

import random
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import BartConfig, BartForConditionalGeneration, BartTokenizer
from transformers.modeling_outputs import BaseModelOutput

from .corpus import KIND_WEIGHTS, Asked, draw_asked, draw_scene, infilling_prompt
from .world import CAPTION_TEMPLATES, fill


DIM = 96
BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY, STEPS = 64, 1.5e-3, 0.01, 2400
PLAIN_KINDS = ("color", "shape", "yes_no_color", "yes_no_shape")  # the only kinds in the first third of the training
MAX_ANSWER_MASKS, MAX_CAPTION_MASKS = 3, 8


def bart_config(tokenizer: BartTokenizer) -> BartConfig:
    """Return a BART of two layers, without dropout."""
    # With BART's own init_std of 0.02, the model never learns to compare colors.
    sizes = {"d_model": DIM, "max_position_embeddings": 128, "init_std": 0.1}
    for part in ("encoder", "decoder"):
        sizes |= {f"{part}_layers": 2, f"{part}_attention_heads": 4, f"{part}_ffn_dim": 4 * DIM}
    no_dropout = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    return BartConfig(vocab_size=len(tokenizer), forced_eos_token_id=None, **sizes, **no_dropout)


def train_bart(tokenizer: BartTokenizer, seed: int = 0, steps: int = STEPS) -> BartForConditionalGeneration:
    """Train on texts that are drawn anew for each batch; negated questions join after a third of the steps."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    model = BartForConditionalGeneration(bart_config(tokenizer)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LEARNING_RATE, total_steps=steps, pct_start=0.1)
    for step in tqdm(range(steps), desc="BART", unit="step"):
        kinds = PLAIN_KINDS if step < steps // 3 else tuple(KIND_WEIGHTS)
        loss = batch_loss(model, tokenizer, rng, kinds)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def batch_loss(
    model: BartForConditionalGeneration,
    tokenizer: BartTokenizer,
    rng: random.Random,
    kinds: tuple[str, ...],
) -> Tensor:
    """Draw a batch and compute its loss. In 15 % of all batches, passage and question are one text, else two."""
    asked = [draw_asked(rng, kinds) for _ in range(BATCH_SIZE)]
    if rng.random() < 0.15:
        masks = rng.randint(1, MAX_ANSWER_MASKS)
        targets = [f"{each.passage} {each.text}" for each in asked]
        sources = [infilling_prompt(target, masks) for target in targets]
        passages: list[str] | None = None
    else:
        apart = [passage_apart(each, rng) for each in asked]
        passages, sources, targets = (list(texts) for texts in zip(*apart))
    as_sentence = rng.random() < 0.75
    source, target = (tokenizer(texts, padding=True, return_tensors="pt") for texts in (sources, targets))
    labels = target.input_ids.masked_fill(target.input_ids == tokenizer.pad_token_id, -100)
    memory, mask = read(model, tokenizer, source, passages, as_sentence)
    return model(encoder_outputs=BaseModelOutput(memory), attention_mask=mask, labels=labels).loss


def passage_apart(asked: Asked, rng: random.Random) -> tuple[str, str, str]:
    """Make a passage, a source and a target: a question to answer or, in one of eight cases, another description."""
    if rng.random() < 7 / 8:
        return asked.passage, infilling_prompt(asked.text, rng.randint(1, MAX_ANSWER_MASKS)), asked.text
    scene = draw_scene(rng)
    target = fill(CAPTION_TEMPLATES[0], scene.color, scene.shape)
    return rng.choice(scene.captions()), infilling_prompt(target, rng.randint(1, MAX_CAPTION_MASKS)), target


def read(
    model: BartForConditionalGeneration,
    tokenizer: BartTokenizer,
    source: dict[str, Tensor],
    passages: list[str] | None,
    as_sentence: bool,
) -> tuple[Tensor, Tensor]:
    """Encode sources and passages apart; return their states, passages first, and their mask.

    Args:
        as_sentence: keep only the first state of each passage, that of `<s>`.

    Returns:
        `(batch, length, d_model)` and `(batch, length)`.
    """
    encoder = model.get_encoder()
    states = encoder(**source).last_hidden_state
    if passages is None:
        return states, source["attention_mask"]
    passage = tokenizer(passages, padding=True, return_tensors="pt")
    context, mask = encoder(**passage).last_hidden_state, passage["attention_mask"]
    if as_sentence:
        context, mask = context[:, :1], mask[:, :1]
    return torch.cat([context, states], dim=1), torch.cat([mask, source["attention_mask"]], dim=1)


def save_bart(model: BartForConditionalGeneration, tokenizer: BartTokenizer, folder: Path):
    """Save model and tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@torch.no_grad()
def score_bart(model: BartForConditionalGeneration, tokenizer: BartTokenizer, count: int = 600) -> dict[str, float]:
    """Compute the share of right answers, with the passage as one sentence state and within the question's text."""
    rng = random.Random("validation")
    asked = [draw_asked(rng) for _ in range(count)]
    apart = [infilling_prompt(each.text, 2) for each in asked], [each.text for each in asked]
    texts = [f"{each.passage} {each.text}" for each in asked]
    within = [infilling_prompt(text, 2) for text in texts], texts
    passages = [each.passage for each in asked]
    return {
        "passage_as_sentence": share_written(model, tokenizer, *apart, passages),
        "passage_within_text": share_written(model, tokenizer, *within, None),
    }


def share_written(
    model: BartForConditionalGeneration,
    tokenizer: BartTokenizer,
    sources: list[str],
    targets: list[str],
    passages: list[str] | None,
) -> float:
    """Compute the share of targets whose answer is right in every token, each predicted after the true ones."""
    source, target = (tokenizer(texts, padding=True, return_tensors="pt") for texts in (sources, targets))
    memory, mask = read(model, tokenizer, source, passages, as_sentence=True)
    output = model(encoder_outputs=BaseModelOutput(memory), attention_mask=mask, labels=target.input_ids)
    right = output.logits.argmax(dim=-1) == target.input_ids  # (texts, length)
    ends = target.attention_mask.sum(dim=1, keepdim=True)
    from_end = torch.arange(right.shape[1]) - ends  # -1 is the end token, -2 the period, -3 the answer's last token
    return (right | (from_end < -3) | (from_end >= 0)).all(dim=1).float().mean().item()
