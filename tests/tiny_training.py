"""A world small enough to train on in a second: a tokenizer, a random VLKD, random images and their captions."""

import json
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import BartTokenizer, CLIPConfig, CLIPImageProcessorPil, CLIPModel

from modeling_vlkd import VLKDConfig, VLKDForConditionalGeneration, VLKDProcessor


COLORS, SHAPES = ("red", "blue", "green", "teal"), ("circle", "box", "triangle")
CAPTIONS = [f"A picture of a {color} {shape}." for color in COLORS for shape in SHAPES]
DIM, IMAGE_SIZE = 16, 8


def tiny_tokenizer() -> BartTokenizer:
    """A byte-level BPE like BART's, special tokens included, trained on a few sentences."""
    trained = ByteLevelBPETokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    texts = [*CAPTIONS, "what color is the shape? Answer: red.", "is there a circle? Answer: yes."]
    trained.train_from_iterator(texts * 4, vocab_size=360, special_tokens=specials, show_progress=False)
    state = json.loads(trained.to_str())["model"]
    return BartTokenizer(vocab=state["vocab"], merges=[tuple(merge) for merge in state["merges"]], model_max_length=64)


def tiny_processor() -> VLKDProcessor:
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    image_processor = CLIPImageProcessorPil(size=size, crop_size=size)
    return VLKDProcessor(image_processor, tiny_tokenizer(), num_caption_masks=2, num_question_masks=1)


def tiny_model(processor: VLKDProcessor, seed: int = 0, dropout: float = 0.0) -> VLKDForConditionalGeneration:
    torch.manual_seed(seed)
    vision = {"model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "projection_dim": DIM, "image_size": IMAGE_SIZE, "patch_size": 4}
    text = {"model_type": "bart", "vocab_size": len(processor.tokenizer), "d_model": 24, "max_position_embeddings": 64}
    text |= {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    text |= {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "dropout": dropout, "init_std": 0.1}
    text |= {"attention_dropout": dropout, "activation_dropout": dropout}
    model = VLKDForConditionalGeneration(VLKDConfig(vision_config=vision, text_config=text))
    model.generation_config.max_new_tokens = 40
    return model


def tiny_pairs(count: int = 12, seed: int = 0) -> list[dict]:
    """Pairs of image rows and a caption, with the teacher's embedding of the caption."""
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "image_embeds": torch.randn(1, DIM, generator=generator),
            "caption": CAPTIONS[index % len(CAPTIONS)],
            "text_teacher_embeds": torch.randn(DIM, generator=generator),
        }
        for index in range(count)
    ]


def tiny_clip(folder: Path, processor: VLKDProcessor) -> Path:
    """Save a random CLIP in transformers format; its tokenizer is BART's."""
    torch.manual_seed(0)
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    text = layers | {"vocab_size": len(processor.tokenizer), "max_position_embeddings": 16, "eos_token_id": 2}
    vision = layers | {"image_size": IMAGE_SIZE, "patch_size": 4}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=DIM)
    CLIPModel(config).save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    return folder
