import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import CAPTIONS, DIM, tiny_model, tiny_processor

from modeling_vlkd.evaluation.protocol import Answer, VisionLanguageModel
from modeling_vlkd.evaluation.vlkd_model import VLKDAdapter, evaluating
from modeling_vlkd.generation_vlkd import generate_answers, generate_captions


QUESTIONS = ["is there a circle?", "what color is the shape?", "is there a circle?"]


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def adapter(processor) -> VLKDAdapter:
    return VLKDAdapter(tiny_model(processor).eval(), processor, batch_size=2)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)) for _ in range(3)]


def test_it_speaks_the_protocol(adapter, pictures):
    """And gives the same for pictures, and for what it has kept of them."""
    model: VisionLanguageModel = adapter
    seen = model.look(iter(pictures))
    assert seen.shape == (3, 1, DIM)
    assert model.look(seen) is seen
    assert model.answer(pictures, QUESTIONS) == model.answer(seen, QUESTIONS)
    assert model.caption(pictures) == model.caption(seen)
    assert torch.equal(model.embed_images(pictures), model.embed_images(seen))


def test_answers_and_captions_are_the_models_own(adapter, processor, pictures):
    rows, index = adapter.look(pictures), [2, 0, 0]
    expected = generate_answers(adapter.model, processor, QUESTIONS, rows, index)
    assert adapter.answer(rows, QUESTIONS, index) == [Answer(best["answer"], best["score"]) for [best] in expected]
    several = VLKDAdapter(adapter.model, processor, top_k=2).rank_answers(rows, QUESTIONS, index)
    expected = generate_answers(adapter.model, processor, QUESTIONS, rows, index, top_k=2)
    assert [[answer.text for answer in ranked] for ranked in several] == [
        [each["answer"] for each in ranked] for ranked in expected
    ]
    blind = generate_answers(adapter.model, processor, QUESTIONS)
    assert [answer.text for answer in adapter.answer(None, QUESTIONS)] == [best["answer"] for [best] in blind]
    free = VLKDAdapter(adapter.model, processor, num_masks=3, force_prefix=False)
    expected = generate_captions(adapter.model, processor, rows, num_masks=3, force_prefix=False)
    assert [caption.text for caption in free.caption(rows)] == [best["caption"] for [best] in expected]


def test_embeddings_are_the_models_own_whatever_the_batch_size(adapter, processor, pictures):
    model = adapter.model
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        torch.testing.assert_close(adapter.embed_images(pictures), model.get_image_features(pixels).pooler_output)
        for text, found in zip(CAPTIONS, adapter.embed_texts(CAPTIONS)):
            expected = model.get_text_features(**processor(text=text, return_tensors="pt")).pooler_output[0]
            torch.testing.assert_close(found, expected)


def test_nothing_at_all_has_the_shape_of_nothing(adapter):
    assert adapter.embed_images([]).shape == adapter.embed_texts([]).shape == (0, DIM)
    assert adapter.caption([]) == adapter.answer(None, []) == []


def test_a_model_in_training_answers_without_dropout_and_goes_on_training(processor, pictures):
    model = tiny_model(processor, dropout=0.5).train()
    adapter = VLKDAdapter(model, processor)
    assert adapter.caption(pictures) == adapter.caption(pictures)
    assert torch.equal(adapter.embed_texts(CAPTIONS), adapter.embed_texts(CAPTIONS))
    assert model.training
    with evaluating(model):
        assert not model.training
    assert model.training
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert model.training
