"""Images against texts as a CLIP compares them, alone and in transformers' own pipeline."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DIM, TEXTS, VISION_CONFIGS
from PIL import Image
from torch.nn.functional import cosine_similarity
from transformers import pipeline

from modeling_vlkd import VLKDForConditionalGeneration, VLKDForZeroShotImageClassification


@pytest.mark.parametrize("tower", VISION_CONFIGS)
@torch.no_grad()
def test_logits_are_scaled_cosines_of_the_features(make_model, tokenizer, pixel_values, tower: str):
    """Of two images and three texts, from pixels and from image rows."""
    model, images = make_model(tower, VLKDForZeroShotImageClassification), pixel_values[:2]
    model.model.logit_scale.fill_(1.7)
    texts = tokenizer(TEXTS, padding=True, return_tensors="pt")
    output = model(**texts, pixel_values=images)
    image_embeds = model.get_image_features(images).pooler_output
    text_embeds = model.get_text_features(**texts).pooler_output
    cosines = cosine_similarity(image_embeds[:, None], text_embeds[None], dim=-1)  # (2, 3)
    assert cosines.std() > 0.01
    torch.testing.assert_close(output.logits_per_image, np.exp(1.7) * cosines, rtol=1e-4, atol=1e-4)
    assert torch.equal(output.logits_per_text, output.logits_per_image.T)
    assert (output.image_embeds.shape, output.text_embeds.shape) == ((2, DIM), (3, DIM))
    torch.testing.assert_close(output.text_embeds.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(output.image_embeds @ output.text_embeds.T, cosines, rtol=1e-4, atol=1e-5)
    from_rows = model(**texts, image_embeds=model.get_image_rows(images))
    assert torch.equal(from_rows.logits_per_image, output.logits_per_image)
    as_tuple = model(**texts, pixel_values=images, return_dict=False)
    assert torch.equal(as_tuple[0], output.logits_per_image)


@torch.no_grad()
def test_every_checkpoint_is_one_for_it_and_what_it_saves_captions_again(tiny_checkpoint: Path, inputs, tmp_path):
    model, info = VLKDForZeroShotImageClassification.from_pretrained(tiny_checkpoint, output_loading_info=True)
    assert not any(info.values())
    captioner = VLKDForConditionalGeneration.from_pretrained(tiny_checkpoint)
    expected = captioner.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output
    text_embeds = model(**inputs).text_embeds
    torch.testing.assert_close(text_embeds, torch.nn.functional.normalize(expected, dim=-1))
    model.save_pretrained(tmp_path)
    again = VLKDForConditionalGeneration.from_pretrained(tmp_path)
    again.final_logits_bias.copy_(captioner.final_logits_bias)
    assert torch.equal(again(**inputs).logits, captioner(**inputs).logits)


def test_what_is_missing_is_named(make_model, inputs):
    model = make_model(model_class=VLKDForZeroShotImageClassification)
    with pytest.raises(ValueError, match="Expected pixel_values or image_embeds: the images"):
        model(input_ids=inputs["input_ids"])
    with pytest.raises(ValueError, match="Expected input_ids"):
        model(pixel_values=inputs["pixel_values"])
    with pytest.raises(ValueError, match="A text to read has 65 tokens, but the model has 64 positions"):
        model(input_ids=torch.ones(1, 65, dtype=torch.long), pixel_values=inputs["pixel_values"])


class Heard(logging.Handler):
    def __init__(self):
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord):
        self.messages.append(record.getMessage())


@torch.no_grad()
def test_the_pipeline_of_transformers_gives_softmax_of_the_logits(tiny_checkpoint: Path, processor):
    logging.getLogger("transformers").addHandler(heard := Heard())
    try:
        classifier = pipeline("zero-shot-image-classification", model=str(tiny_checkpoint))
    finally:
        logging.getLogger("transformers").removeHandler(heard)
    assert not [message for message in heard.messages if "not supported" in message]
    assert type(classifier.model) is VLKDForZeroShotImageClassification
    generator = np.random.default_rng(0)
    pictures = [Image.fromarray(generator.integers(0, 255, (40, 50, 3), dtype=np.uint8)) for _ in range(2)]
    labels = ["circle", "blue box", "triangle"]
    results = classifier(pictures, candidate_labels=labels, hypothesis_template="A picture of a {}.")

    captioner = VLKDForConditionalGeneration.from_pretrained(tiny_checkpoint)
    images = captioner.get_image_features(processor(images=pictures, return_tensors="pt").pixel_values).pooler_output
    prompts = processor(text=[f"A picture of a {label}." for label in labels], return_tensors="pt")
    texts = captioner.get_text_features(**prompts).pooler_output
    cosines = cosine_similarity(images[:, None], texts[None], dim=-1)
    expected = (captioner.model.logit_scale.exp() * cosines).softmax(dim=-1)  # (2, 3)
    for found, row in zip(results, expected, strict=True):
        assert {each["label"]: each["score"] for each in found} == pytest.approx(
            dict(zip(labels, row.tolist())), rel=1e-3, abs=1e-5
        )
        assert found[0]["score"] == max(each["score"] for each in found)
