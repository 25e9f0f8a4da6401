"""The model: the decoder's memory, the features, the loss, and that CLIP does not change."""

from functools import partial

import pytest
import torch
from conftest import DIM, TEXTS, WIDTH
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartForSequenceClassification,
    CLIPVisionModelWithProjection,
    SiglipVisionModel,
)

from modeling_vlkd import (
    CLIPResNetVisionModelWithProjection,
    VLKDConfig,
    VLKDForConditionalGeneration,
    VLKDForSequenceClassification,
    VLKDModel,
)


TOWERS = {
    "vit": CLIPVisionModelWithProjection,
    "resnet": CLIPResNetVisionModelWithProjection,
    "siglip": SiglipVisionModel,
}
ROWS = {"vit": 1, "resnet": 5, "siglip": 1}
assert_close = partial(torch.testing.assert_close, rtol=1e-3, atol=1e-4)  # logits here are of order 1


@pytest.mark.parametrize("tower", TOWERS)
@torch.no_grad()
def test_image_features_are_the_towers_own(make_model, pixel_values, tower: str):
    model = make_model(tower)
    alone = TOWERS[tower](model.config.vision_config).eval()
    alone.load_state_dict(model.model.vision_tower.state_dict())
    output = alone(pixel_values)
    expected = output.pooler_output if tower == "siglip" else output.image_embeds
    # Close, not equal: the last bit may depend on the alignment of a tensor in memory.
    assert_close(model.get_image_features(pixel_values=pixel_values).pooler_output, expected)
    rows = model.get_image_rows(pixel_values=pixel_values)
    assert rows.shape == (3, ROWS[tower], DIM)
    assert_close(rows[:, 0], expected)
    if tower == "resnet":
        assert_close(rows, output.last_hidden_state)


@torch.no_grad()
def test_feature_methods_return_what_is_asked(model, inputs):
    texts = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    for output in (
        model.get_image_features(pixel_values=inputs["pixel_values"], output_hidden_states=True),
        model.get_text_features(**texts, output_hidden_states=True),
    ):
        assert output.pooler_output.shape == (3, DIM)
        assert len(output.hidden_states) > 2
    assert model.get_text_features(**texts).hidden_states is None
    assert isinstance(model.get_text_features(**texts, return_dict=False), tuple)
    assert isinstance(model.get_image_features(pixel_values=inputs["pixel_values"], return_dict=False), tuple)


@torch.no_grad()
def test_decoder_sees_image_rows_and_bridged_text(model, inputs):
    """Compute C = [W_i V ; W'_e W_e E], eq. (1) of arXiv:2203.06386, factor by factor."""
    parts = model.model
    rows = model.get_image_rows(inputs["pixel_values"])  # V
    states = parts.language_model.encoder(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state  # E
    w_e, w_e_back, w_i = (
        parts.text_projection.weight,
        parts.text_to_decoder.weight,
        parts.image_to_decoder.weight,
    )
    expected = torch.cat([rows @ w_i.T, states @ w_e.T @ w_e_back.T], dim=1)
    output = model(**inputs)
    assert_close(output.encoder_last_hidden_state, expected)

    mask = torch.cat([torch.ones(3, rows.shape[1]), inputs["attention_mask"]], dim=1)
    start = parts.language_model.decoder(
        input_ids=model.prepare_decoder_input_ids_from_labels(inputs["input_ids"]),
        encoder_hidden_states=expected,
        encoder_attention_mask=mask,
    )
    assert_close(output.logits, model.lm_head(start.last_hidden_state) + model.final_logits_bias)


@torch.no_grad()
def test_image_rows_may_stand_for_pixels(model, inputs):
    rows = model.get_image_rows(inputs["pixel_values"])
    texts = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    expected = model(**inputs).logits
    assert torch.equal(model(**texts, image_embeds=rows).logits, expected)
    assert not torch.allclose(model(**texts, image_embeds=rows.roll(1, 0)).logits, expected, atol=1e-3)


@torch.no_grad()
def test_hidden_image_rows_leave_a_text_model(model, inputs):
    """A mask of the memory's length is used unchanged: with 0 for the rows, the decoder attends only to the text."""
    rows = model.get_image_rows(inputs["pixel_values"])
    mask = torch.cat([torch.zeros(3, rows.shape[1], dtype=torch.long), inputs["attention_mask"]], dim=1)
    hidden = model(inputs["input_ids"], image_embeds=rows, attention_mask=mask).logits
    text_only = model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    assert_close(hidden, text_only)
    assert not torch.allclose(model(**inputs).logits, text_only, atol=1e-3)


@torch.no_grad()
def test_padding_changes_nothing(model, inputs):
    decoder_input_ids = torch.tensor([[2, 0, 7, 8]])
    batch = model(**inputs, decoder_input_ids=decoder_input_ids.expand(3, -1)).logits
    for place in range(3):
        length = int(inputs["attention_mask"][place].sum())
        alone = model(
            input_ids=inputs["input_ids"][place, None, :length],
            pixel_values=inputs["pixel_values"][place, None],
            decoder_input_ids=decoder_input_ids,
        )
        assert_close(batch[place, None], alone.logits)


@torch.no_grad()
def test_known_memory_replaces_the_encoders(model, inputs):
    output = model(**inputs)
    for encoder_outputs in ((output.encoder_last_hidden_state,), output.encoder_last_hidden_state[None]):
        again = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], encoder_outputs=encoder_outputs
        )
        assert torch.equal(again.logits, output.logits)


@torch.no_grad()
def test_without_the_bridge_text_goes_through_bart(make_model, inputs):
    model = make_model(bridge_text_only=False)
    bart = BartForConditionalGeneration(model.config.text_config).eval()
    bart.model.load_state_dict(model.model.language_model.state_dict())
    bart.final_logits_bias.copy_(model.final_logits_bias)
    texts = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    assert_close(model(**texts).logits, bart(**texts).logits)
    settings = {"max_new_tokens": 12, "num_beams": 3, "num_return_sequences": 2}
    assert torch.equal(model.generate(**texts, **settings), bart.generate(**texts, **settings))
    bridged = make_model()
    assert not torch.allclose(bridged(**texts).logits, model(**texts).logits, atol=1e-3)


@pytest.mark.parametrize("text_pooling", ["bos", "eos", "mean"])
@torch.no_grad()
def test_text_features_are_the_pooled_sentence_in_clip_space(make_model, tokenizer, text_pooling: str):
    model = make_model(text_pooling=text_pooling)
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    features = model.get_text_features(**batch).pooler_output
    for text, feature in zip(TEXTS, features):
        states = model.model.language_model.encoder(tokenizer(text, return_tensors="pt").input_ids).last_hidden_state
        sentence = {"bos": states[0, 0], "eos": states[0, -1], "mean": states[0].mean(0)}[text_pooling]
        assert_close(feature, model.model.text_projection(sentence))


@torch.no_grad()
def test_one_forward_gives_what_distillation_needs(model, inputs, tokenizer):
    clean = tokenizer(["a red box.", "a blue circle in the image.", "teal."], padding=True, return_tensors="pt")
    clean_inputs = {f"clean_{name}": value for name, value in clean.items()}
    output = model(**inputs, labels=clean.input_ids, **clean_inputs)
    image = model.get_image_features(inputs["pixel_values"]).pooler_output
    text = model.get_text_features(**clean).pooler_output
    assert_close(output.image_embeds, image / image.norm(dim=-1, keepdim=True))
    assert_close(output.text_embeds, text / text.norm(dim=-1, keepdim=True))
    assert_close(output.logit_scale, model.model.logit_scale.exp())
    assert output.loss.ndim == 0

    without = model(**inputs)
    assert (without.text_embeds, without.image_embeds, without.logit_scale) == (None, None, None)
    text_only = model(inputs["input_ids"], attention_mask=inputs["attention_mask"], **clean_inputs)
    assert text_only.image_embeds is None
    assert_close(text_only.text_embeds, output.text_embeds)


@torch.no_grad()
def test_loss_is_the_mean_over_tokens(model, inputs):
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    output = model(**inputs, labels=labels)
    probabilities = output.logits.log_softmax(-1)
    kept = labels != -100
    picked = probabilities.gather(-1, labels.clamp(0)[..., None])[..., 0][kept]
    assert_close(output.loss, -picked.mean())
    assert_close(model(**inputs, labels=labels, num_items_in_batch=torch.tensor(7)).loss, -picked.sum() / 7)
    shifted = labels.masked_fill(~kept, 1).roll(1, dims=1)
    shifted[:, 0] = 2  # BART's decoder starts with </s>
    assert_close(model(**inputs, decoder_input_ids=shifted).logits, output.logits)


@torch.no_grad()
def test_logits_of_the_last_positions_only(model, inputs):
    logits = model(**inputs).logits
    assert_close(model(**inputs, logits_to_keep=2).logits, logits[:, -2:])
    assert_close(model(**inputs, logits_to_keep=torch.tensor([0, 3])).logits, logits[:, [0, 3]])


@torch.no_grad()
def test_attentions_and_hidden_states_cover_the_memory(make_model, inputs):
    model = make_model("resnet")
    model.set_attn_implementation("eager")
    length = inputs["input_ids"].shape[1]
    output = model(**inputs, output_attentions=True, output_hidden_states=True)
    assert output.encoder_attentions[0].shape == (3, 2, length, length)
    assert output.cross_attentions[0].shape == (3, 2, length, 5 + length)
    assert output.encoder_hidden_states[-1].shape == (3, length, WIDTH)
    assert len(output.decoder_hidden_states) == 3
    assert isinstance(model(**inputs, return_dict=False), tuple)


@torch.no_grad()
def test_classification_is_barts_and_takes_an_image(make_model, inputs):
    model = make_model(model_class=VLKDForSequenceClassification, bridge_text_only=False, num_labels=3)
    bart = BartForSequenceClassification(BartConfig(**model.config.text_config.to_dict() | {"num_labels": 3})).eval()
    bart.model.load_state_dict(model.model.language_model.state_dict())
    bart.classification_head.load_state_dict(model.classification_head.state_dict())
    texts = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    assert_close(model(**texts).logits, bart(**texts).logits)

    labels = torch.tensor([0, 2, 1])
    output = model(**inputs, labels=labels)
    assert_close(output.loss, nn.functional.cross_entropy(output.logits, labels))
    assert not torch.allclose(output.logits, model(**texts).logits, atol=1e-3)
    regression = make_model(model_class=VLKDForSequenceClassification, num_labels=1)
    scores = torch.tensor([0.5, 2.0, 1.0])
    output = regression(**inputs, labels=scores)
    assert_close(output.loss, nn.functional.mse_loss(output.logits[:, 0], scores))


@pytest.mark.parametrize("width", [8, 16], ids=["narrower than CLIP", "wider than CLIP"])
def test_new_matrices_start_orthogonal_and_as_pseudo_inverses(make_config, width: int):
    parts = VLKDModel(make_config(text={"d_model": width}))
    w_e = parts.text_projection.weight
    assert w_e.shape == (DIM, width)
    smaller = w_e @ w_e.T if width > DIM else w_e.T @ w_e
    assert_close(smaller, torch.eye(min(width, DIM)), atol=1e-5, rtol=0)
    for back in (parts.text_to_decoder.weight, parts.image_to_decoder.weight):
        assert_close(w_e @ back @ w_e, w_e, atol=1e-5, rtol=0)  # Penrose: A A+ A = A, A+ A A+ = A+
        assert_close(back @ w_e @ back, back, atol=1e-5, rtol=0)
    assert_close(parts.logit_scale.exp(), torch.tensor(1 / 0.07))


BART_LARGE = {  # facebook/bart-large; the other fields are BART's defaults
    **{"model_type": "bart", "vocab_size": 50265, "d_model": 1024, "max_position_embeddings": 1024},
    **{"encoder_layers": 12, "decoder_layers": 12, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096},
    **{"encoder_attention_heads": 16, "decoder_attention_heads": 16},
}
VIT_B16 = {"model_type": "clip_vision_model", "image_size": 224, "patch_size": 16, "projection_dim": 512}
VIT_L14 = {
    **{"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24},
    **{"num_attention_heads": 16, "image_size": 224, "patch_size": 14, "projection_dim": 768},
}


def parameter_counts(vision_config: dict) -> tuple[int, int]:
    """Count the text half (BART, W_e, W'_e) and the vision half (CLIP's tower, W_i), without the temperature."""
    with torch.device("meta"):
        parts = VLKDForConditionalGeneration(VLKDConfig(vision_config=vision_config, text_config=BART_LARGE)).model

    def count(*modules: nn.Module) -> int:
        return sum(parameter.numel() for module in modules for parameter in module.parameters())

    text = count(parts.language_model, parts.text_projection, parts.text_to_decoder)
    vision = count(parts.vision_tower, parts.image_to_decoder)
    assert text + vision + parts.logit_scale.numel() == count(parts)  # nothing else exists
    return text, vision


@pytest.mark.parametrize(
    ("vision_config", "text_millions", "vision_millions"),
    [(VIT_B16, 407.34, 86.72), (VIT_L14, 407.86, 304.75)],
    ids=["ViT-B/16", "ViT-L/14"],
)
def test_published_parameter_counts(vision_config: dict, text_millions: float, vision_millions: float):
    text, vision = parameter_counts(vision_config)
    assert round(text / 1e6, 2) == text_millions
    assert round(vision / 1e6, 2) == vision_millions


def train_one_step(model: nn.Module, inputs: dict[str, torch.Tensor]):
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    clean = {"clean_input_ids": inputs["input_ids"], "clean_attention_mask": inputs["attention_mask"]}
    output = model(**inputs, **clean, labels=inputs["input_ids"])
    similarities = output.logit_scale * output.image_embeds @ output.text_embeds.T
    (output.loss - similarities.diagonal().sum()).backward()
    optimizer.step()


@pytest.mark.parametrize("tower", TOWERS)
def test_training_leaves_clip_bit_identical(make_model, inputs, tower: str):
    """Compare weights and also the statistics and counters of batch norm."""
    model = make_model(tower)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train_one_step(model, inputs)
    for name, tensor in model.state_dict().items():
        if name.startswith("model.vision_tower."):
            assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in model.model.vision_tower.parameters())
    for name, parameter in model.named_parameters():
        if not name.startswith("model.vision_tower."):
            assert parameter.grad is not None, name
            assert not torch.equal(parameter, before[name]), name


def test_frozen_clip_stays_in_eval_mode(make_model):
    model = make_model("resnet")
    for mode in (True, False, True):
        model.train(mode)
        assert not any(module.training for module in model.model.vision_tower.modules())
        assert model.model.language_model.training is mode
    model.model.train()
    assert not model.model.vision_tower.training


def test_clip_may_be_trained(make_model, inputs):
    model = make_model("resnet", freeze_vision_tower=False)
    model.train()
    assert all(module.training for module in model.model.vision_tower.modules())
    before = {name: tensor.clone() for name, tensor in model.model.vision_tower.state_dict().items()}
    train_one_step(model, inputs)
    after = model.model.vision_tower.state_dict()
    assert not torch.equal(
        after["embeddings.layers.0.convolution.weight"], before["embeddings.layers.0.convolution.weight"]
    )
    assert after["embeddings.layers.0.normalization.num_batches_tracked"] == 8  # 7 at random, and this step


@torch.no_grad()
def test_eager_equals_sdpa(make_model, inputs):
    model = make_model("resnet")
    expected = model(**inputs).logits
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    assert model.model.vision_tower.config._attn_implementation == "eager"
    assert_close(model(**inputs).logits, expected)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(make_model, inputs, use_reentrant: bool):
    gradients = []
    for checkpointing in (False, True):
        model = make_model(text={"dropout": 0.0})
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
            assert model.model.language_model.encoder.gradient_checkpointing
        model.train()
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        gradients.append({name: value.grad for name, value in model.named_parameters() if value.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        assert_close(gradients[1][name], expected, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_is_near_full_precision(make_model, inputs, dtype: torch.dtype):
    model = make_model("resnet")
    expected = model(**inputs).logits
    model.to(dtype)
    half = {**inputs, "pixel_values": inputs["pixel_values"].to(dtype)}
    output = model(**half, labels=inputs["input_ids"])
    assert output.logits.dtype == dtype
    assert (output.logits.float() - expected).abs().mean() < 0.05 * expected.abs().mean()
    full_rows = model.get_image_rows(half["pixel_values"]).float()  # kept features are often in full precision
    del half["pixel_values"]
    assert_close(model(**half, image_embeds=full_rows).logits, output.logits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_values": (2, 3, 64, 64)}, "Expected one image per text, got 2 images and 3 texts"),
        ({"pixel_values": None, "image_embeds": (2, 1, DIM)}, "Expected one image per text, got 2 images and 3 texts"),
        ({"image_embeds": (3, 1, DIM)}, "Got pixel_values and image_embeds: give one"),
        ({"pixel_values": None, "image_embeds": (3, 1, 7)}, r"shape \(batch, rows, 12\).*got \(3, 1, 7\)"),
        ({"pixel_values": None, "image_embeds": (3, DIM)}, r"shape \(batch, rows, 12\).*got \(3, 12\)"),
        ({"attention_mask": (3, 40)}, r"Expected attention_mask of shape \(3, \d+\), or .*, got \(3, 40\)"),
        ({"attention_mask": (3, 2)}, r"Expected attention_mask of shape .*, got \(3, 2\)"),
        ({"attention_mask": (2, 20)}, r"Expected attention_mask of shape .*, got \(2, 20\)"),
    ],
    ids=["pixels", "rows", "both", "width", "no rows dimension", "long mask", "short mask", "mask of two"],
)
@pytest.mark.parametrize("method", ["forward", "generate"])
def test_wrong_inputs_are_refused(make_model, inputs, change: dict, message: str, method: str):
    model = make_model()
    for name, shape in change.items():
        inputs[name] = shape and torch.ones(shape, dtype=torch.long if name == "attention_mask" else torch.float)
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(**{name: value for name, value in inputs.items() if value is not None})


@pytest.mark.parametrize("batch", [1, 2])
def test_unequal_numbers_of_texts_are_refused(model, inputs, batch: int):
    with pytest.raises(ValueError, match=rf"one text to write per text read, got {batch} and 3\."):
        model(**inputs, labels=torch.zeros(batch, 5, dtype=torch.long))


def test_an_image_without_text_is_refused(model, pixel_values):
    with pytest.raises(ValueError, match=r"Expected input_ids .* beside the image"):
        model(pixel_values=pixel_values)
    memory = torch.zeros(3, 4, WIDTH)
    with pytest.raises(ValueError, match="Expected decoder_input_ids or labels"):
        model(encoder_outputs=(memory,))
    with pytest.raises(ValueError, match="attention_mask covers 5 positions, but the encoder output has 4"):
        model(encoder_outputs=(memory,), attention_mask=torch.ones(3, 5), decoder_input_ids=torch.zeros(3, 1).long())


@pytest.mark.parametrize("tower", ["vit", "resnet", "siglip"])
@torch.no_grad()
def test_pixels_are_cast_to_the_towers_type(make_model, inputs, processor, tower: str):
    """A processor returns pixels in full precision, whatever the model's type is."""
    model = make_model(tower).to(torch.bfloat16)
    assert inputs["pixel_values"].dtype == torch.float32
    half = {**inputs, "pixel_values": inputs["pixel_values"].to(torch.bfloat16)}
    assert torch.equal(model(**inputs).logits, model(**half).logits)
    settings = {"num_beams": 1, "max_new_tokens": 4}
    assert torch.equal(model.generate(**inputs, **settings), model.generate(**half, **settings))


def test_texts_that_are_too_long_are_refused_by_length(model):
    too_long = torch.full((1, 65), 7)
    with pytest.raises(
        ValueError, match=r"A text to read has 65 tokens, but the model has 64 positions; shorten it\."
    ):
        model(input_ids=too_long)
    with pytest.raises(ValueError, match="A text to read has 65 tokens"):
        model.generate(input_ids=too_long)
    with pytest.raises(ValueError, match="A text to read has 65 tokens"):
        model.get_text_features(input_ids=too_long)
    with pytest.raises(ValueError, match="A text to write has 65 tokens"):
        model(input_ids=too_long[:, :64], labels=too_long)


def test_unknown_vision_tower_is_refused():
    config = VLKDConfig(vision_config={"model_type": "vit"}, text_config={"model_type": "bart"})
    with pytest.raises(ValueError, match="towers of type 'vit' are not supported; choose one of clip_vision_model"):
        VLKDModel(config)


def test_random_models_differ_by_seed(make_model):
    """The tests above compare such models, and equal outputs must not come from equal or zero weights."""
    one, other = make_model("resnet"), make_model("resnet", seed=2)
    for (name, tensor), different in zip(one.state_dict().items(), other.state_dict().values()):
        assert not tensor.is_floating_point() or not torch.equal(tensor, different), name
