"""Train the miniature CLIP on training pictures of easy-VQA and captions that are made from their scenes."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import BartTokenizer, CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor

from modeling_vlkd.trainers import image_text_contrastive_loss

from .world import CAPTION_TEMPLATES, COLORS, SHAPES, Scene, Split, fill


IMAGE_SIZE, TEXT_LENGTH, DIM = 64, 24, 96
BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY, STEPS = 128, 2e-3, 0.05, 1400
CLASSES = [Scene(color, shape) for color in COLORS for shape in SHAPES]  # the 24 that retrieval tells apart


def clip_config(tokenizer: BartTokenizer) -> CLIPConfig:
    """Return a CLIP of three vision layers and two text layers."""
    vision = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
    vision |= {"image_size": IMAGE_SIZE, "patch_size": 8, "projection_dim": DIM}
    text = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"vocab_size": len(tokenizer), "max_position_embeddings": TEXT_LENGTH, "projection_dim": DIM}
    text |= {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return CLIPConfig(vision_config=vision, text_config=text, projection_dim=DIM)


def clip_processor(tokenizer: BartTokenizer) -> CLIPProcessor:
    """Return CLIP's processor for pictures of 64 x 64 pixels."""
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    images = CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=size)
    return CLIPProcessor(images, tokenizer)


def move_shape(image: np.ndarray, rng: random.Random) -> np.ndarray:
    """Move the shape to a random place, and mirror the picture half of the time.

    Args:
        image: `(64, 64, 3)`, uint8. If two opposite corners differ in color, the shape covers one of them; then it is
            not moved, because the background is unknown.
    """
    background_is_known = (image[0, 0] == image[-1, -1]).all()
    shape = (image != image[0, 0]).any(axis=-1)  # (64, 64)
    if background_is_known and shape.any():
        moves = []
        for axis in (0, 1):
            filled = np.flatnonzero(shape.any(axis=1 - axis))
            moves.append(rng.randint(-int(filled[0]), len(shape) - 1 - int(filled[-1])))
        image = np.roll(image, moves, axis=(0, 1))
    return image[:, ::-1] if rng.random() < 0.5 else image


def train_clip(tokenizer: BartTokenizer, train: Split, seed: int = 0, steps: int = STEPS) -> CLIPModel:
    """Train by the symmetric contrastive loss, on pictures with moved shapes and one of the true captions of each."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    model, processor = CLIPModel(clip_config(tokenizer)).train(), clip_processor(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LEARNING_RATE, total_steps=steps)
    for _ in tqdm(range(steps), desc="CLIP", unit="step"):
        chosen = rng.sample(range(len(train.images)), BATCH_SIZE)
        pixels = normalize(np.stack([move_shape(train.images[picture], rng) for picture in chosen]), processor)
        captions = [rng.choice(train.scenes[picture].captions()) for picture in chosen]
        output = model(pixel_values=pixels, **tokenizer(captions, padding=True, return_tensors="pt"))
        loss = image_text_contrastive_loss(output.image_embeds, output.text_embeds, model.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def normalize(images: np.ndarray, processor: CLIPProcessor) -> Tensor:
    """Do the same as the image processor, for pictures of its own size: `(n, 64, 64, 3)` to `(n, 3, 64, 64)`."""
    images_config = processor.image_processor
    mean, std = (np.array(values, dtype=np.float32) for values in (images_config.image_mean, images_config.image_std))
    return torch.from_numpy(((images / np.float32(255) - mean) / std).transpose(0, 3, 1, 2).copy()).float()


@torch.no_grad()
def embed_images(model: CLIPModel, processor: CLIPProcessor, images: np.ndarray) -> Tensor:
    """Compute CLIP's image embeddings, `(n, 64, 64, 3)` to `(n, 96)`."""
    parts = [
        model.get_image_features(pixel_values=normalize(images[start : start + 250], processor)).pooler_output
        for start in range(0, len(images), 250)
    ]
    return torch.cat(parts)


@torch.no_grad()
def embed_texts(model: CLIPModel, tokenizer: BartTokenizer, texts: Sequence[str]) -> Tensor:
    """Compute CLIP's text embeddings of n texts, `(n, 96)`."""
    parts = [
        model.get_text_features(
            **tokenizer(list(texts[start : start + 250]), padding=True, return_tensors="pt")
        ).pooler_output
        for start in range(0, len(texts), 250)
    ]
    return torch.cat(parts)


def class_texts() -> list[list[str]]:
    """Return, for each of the 24 classes, its captions that name no size."""
    templates = [template for template in CAPTION_TEMPLATES if "{size}" not in template]
    return [[fill(template, scene.color, scene.shape) for template in templates] for scene in CLASSES]


def zero_shot_accuracy(model: CLIPModel, processor: CLIPProcessor, split: Split) -> float:
    """Compute the share of pictures that CLIP puts into the right one of the 24 classes.

    A class is represented by the mean of its captions' embeddings.
    """
    texts = torch.stack(
        [
            torch.nn.functional.normalize(embed_texts(model, processor.tokenizer, captions), dim=-1).mean(dim=0)
            for captions in class_texts()
        ]
    )
    found = (embed_images(model, processor, split.images) @ texts.T).argmax(dim=1).tolist()
    true = [CLASSES.index(Scene(scene.color, scene.shape)) for scene in split.scenes]
    return sum(a == b for a, b in zip(found, true)) / len(true)


def save_clip(model: CLIPModel, processor: CLIPProcessor, folder: Path):
    """Save model and processor."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
