"""8-bit weights by bitsandbytes, which runs on the CPU as well."""

from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear8bitLt
from random_weights import random_pictures, relative_difference
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor
from modeling_vlkd.generation_vlkd import generate_answers
from modeling_vlkd.miniature.corpus import reading_probe
from modeling_vlkd.miniature.distilling import WEIGHTS, Teachers, assemble


QUESTIONS, ANSWERS = reading_probe(40)
WHOLE = BitsAndBytesConfig(load_in_8bit=True)
# By default, only the head is skipped, because it is tied to the embeddings. A list replaces that default, so the head
# is in it, too.
WITHOUT_CLIP = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["model.vision_tower", "lm_head"])


@pytest.fixture(scope="module")
def miniature(tmp_path_factory) -> tuple[VLKDForConditionalGeneration, VLKDProcessor, Path]:
    """Assemble the miniature's teachers: its BART answers questions about a passage that stands before them."""
    folder = tmp_path_factory.mktemp("miniature")
    model, processor = assemble(Teachers.load(WEIGHTS))
    model.save_pretrained(folder)
    return model, processor, folder


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return random_pictures(4, 64)


def classes_of_linear(module: nn.Module) -> set[type]:
    return {type(each) for each in module.modules() if isinstance(each, nn.Linear)}


def read(model: VLKDForConditionalGeneration, processor: VLKDProcessor) -> list[dict]:
    return [best for [best] in generate_answers(model, processor, QUESTIONS)]


@torch.no_grad()
def test_answers_in_8_bit_are_those_in_32(miniature, pixels, tmp_path):
    model, processor, folder = miniature
    expected = [each["answer"] for each in read(model, processor)]
    assert sum(map(str.__eq__, expected, ANSWERS)) >= 38
    quantized = VLKDForConditionalGeneration.from_pretrained(folder, quantization_config=WHOLE)
    assert classes_of_linear(quantized.model) == {Linear8bitLt}
    assert type(quantized.lm_head) is nn.Linear
    assert quantized.lm_head.weight is quantized.get_input_embeddings().weight
    assert quantized.get_memory_footprint() < 0.4 * model.get_memory_footprint()
    found = read(quantized, processor)
    assert sum(map(str.__eq__, [each["answer"] for each in found], expected)) >= 38
    rows = model.get_image_rows(pixels)
    assert 0 < relative_difference(quantized.get_image_rows(pixels), rows) < 0.05

    quantized.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 0.4 * (folder / "model.safetensors").stat().st_size
    assert read(VLKDForConditionalGeneration.from_pretrained(tmp_path), processor) == found


@torch.no_grad()
def test_clip_may_stay_exact(miniature, pixels):
    model, _, folder = miniature
    quantized = VLKDForConditionalGeneration.from_pretrained(folder, quantization_config=WITHOUT_CLIP)
    assert classes_of_linear(quantized.model.vision_tower) == {nn.Linear}
    assert classes_of_linear(quantized.model.language_model) == {Linear8bitLt}
    assert torch.equal(quantized.get_image_rows(pixels), model.get_image_rows(pixels))


def test_half_precision_around_8_bit(miniature, pixels):
    """bitsandbytes computes in half precision anyway; a picture and a question give a text."""
    _, processor, folder = miniature
    half = VLKDForConditionalGeneration.from_pretrained(folder, quantization_config=WHOLE, dtype=torch.float16)
    inputs = processor(text=processor.question_prompts(["what is it?"] * 4), return_tensors="pt")
    logits = half(**inputs, pixel_values=pixels.half(), labels=inputs["input_ids"]).logits
    assert logits.dtype is torch.float16
    assert logits.isfinite().all()
    assert len(half.generate(**inputs, pixel_values=pixels.half(), num_beams=2)) == 4
