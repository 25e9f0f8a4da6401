"""Adapters for models of text: each text by itself, whatever stands beside it in a batch."""

import pytest
import torch
from random_weights import randomize
from transformers import BartForConditionalGeneration, BartForSequenceClassification

from modeling_vlkd import VLKDForSequenceClassification
from modeling_vlkd.evaluation.text_models import ClassifierAdapter, WriterAdapter, read_limit


TEXTS = ["a box.", "what color is the shape? " * 3, "", "is there a circle?", "A picture of a red box. " * 40]
PAIRS = ["yes", "red", "a circle is there", "no", "a picture " * 30]
SETTINGS = {"num_beams": 3, "min_new_tokens": 4, "max_new_tokens": 9}


@pytest.fixture(scope="module")
def writers(make_model, make_config, tokenizer) -> dict[str, WriterAdapter]:
    bart = randomize(BartForConditionalGeneration(make_config().text_config))
    models = {"vlkd": make_model(), "straight": make_model(bridge_text_only=False), "bart": bart.eval()}
    return {name: WriterAdapter(model, tokenizer, batch_size=2, **SETTINGS) for name, model in models.items()}


@pytest.fixture(scope="module")
def classifiers(make_model, make_config, tokenizer) -> dict[str, ClassifierAdapter]:
    bart = randomize(BartForSequenceClassification(make_config().text_config)).eval()
    models = {"vlkd": make_model(model_class=VLKDForSequenceClassification), "bart": bart}
    return {name: ClassifierAdapter(model, tokenizer, batch_size=2) for name, model in models.items()}


@pytest.mark.parametrize("name", ["vlkd", "straight", "bart"])
def test_each_text_is_answered_by_itself_and_in_its_place(name: str, writers, tokenizer):
    writer = writers[name]
    alone = []
    for text in TEXTS:
        inputs = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        written = writer.model.generate(**inputs, **SETTINGS)
        alone.append(tokenizer.decode(written[0], skip_special_tokens=True).strip())
    assert writer.write(TEXTS) == alone
    assert writer.write(TEXTS[::-1]) == alone[::-1]
    assert len(set(alone)) > 1


@pytest.mark.parametrize("name", ["vlkd", "bart"])
@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_outputs_do_not_depend_on_the_batch(name: str, pairs, classifiers, tokenizer):
    classifier = classifiers[name]
    alone = []
    for place, text in enumerate(TEXTS):
        inputs = tokenizer(text, pairs and pairs[place], truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            alone.append(classifier.model(**inputs).logits[0])
    torch.testing.assert_close(classifier.classify(TEXTS, pairs), torch.stack(alone), rtol=1e-4, atol=1e-5)
    assert torch.stack(alone).std(dim=0).min() > 1e-3  # they differ by text


def test_the_second_text_of_a_pair_is_read(classifiers):
    classifier = classifiers["vlkd"]
    assert not torch.allclose(classifier.classify(TEXTS[:1], ["yes"]), classifier.classify(TEXTS[:1], ["red"]))


def test_texts_are_overlong_beyond_what_the_model_reads(classifiers, writers, tokenizer):
    assert read_limit(writers["vlkd"].model, tokenizer) == 64
    assert classifiers["vlkd"].overlong(TEXTS) == [False, False, False, False, True]
    length = len(tokenizer(TEXTS[0])["input_ids"])
    model = writers["bart"].model
    assert WriterAdapter(model, tokenizer, max_length=length).overlong(TEXTS[:2]) == [False, True]
    assert WriterAdapter(model, tokenizer, max_length=length - 1).overlong(TEXTS[:2]) == [True, True]
    assert WriterAdapter(model, tokenizer, max_length=1000).max_length == 64


def test_no_texts_give_nothing(classifiers, writers):
    assert writers["vlkd"].write([]) == []
    assert classifiers["vlkd"].classify([]).shape == (0, 2)


def test_the_model_stays_in_training_mode(classifiers):
    model = classifiers["vlkd"].model.train()
    classifiers["vlkd"].classify(TEXTS[:1])
    assert model.training
    model.eval()
