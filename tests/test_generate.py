"""`generate()` in every mode: the image comes in through one hook, and nothing else differs from BART."""

import pytest
import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from modeling_vlkd import VLKDForConditionalGeneration


GREEDY = {"num_beams": 1, "max_new_tokens": 10}
MODES = {
    "greedy": GREEDY,
    "beams": {"num_beams": 3, "max_new_tokens": 10},
    "several beams": {"num_beams": 4, "num_return_sequences": 3, "max_new_tokens": 10},
    "sampling": {"do_sample": True, "num_beams": 1, "top_k": 20, "max_new_tokens": 10},
    "several samples": {"do_sample": True, "num_beams": 1, "num_return_sequences": 2, "max_new_tokens": 10},
    "beam sampling": {"do_sample": True, "num_beams": 2, "max_new_tokens": 10},
    "static cache": {**GREEDY, "cache_implementation": "static", "disable_compile": True},
    "beams, static cache": {
        **{"num_beams": 2, "max_new_tokens": 10, "cache_implementation": "static", "disable_compile": True}
    },
    "no cache": {**GREEDY, "use_cache": False},
}


def generate(model: VLKDForConditionalGeneration, inputs: dict[str, Tensor], **settings) -> Tensor:
    torch.manual_seed(0)
    return model.generate(**inputs, **settings)


def write_step_by_step(model: VLKDForConditionalGeneration, inputs: dict[str, Tensor], steps: int) -> Tensor:
    """Decode greedily without a cache: run the whole forward pass again for every token."""
    written = torch.full((len(inputs["input_ids"]), 1), 2)
    for _ in range(steps):
        logits = model(**inputs, decoder_input_ids=written).logits[:, -1]
        written = torch.cat([written, logits.argmax(-1, keepdim=True)], dim=1)
    return written


def texts_of(sequences: Tensor) -> list[list[int]]:
    """Return token ids without padding (1) and without anything after the end (2), which a batch may add."""
    rows = [[token for token in row[1:] if token != 1] for row in sequences.tolist()]
    return [row[: row.index(2)] if 2 in row else row for row in rows]


@torch.no_grad()
def test_greedy_equals_forward_passes(model, inputs):
    """Caches, the extended mask and the image rows agree with `forward`."""
    expected = write_step_by_step(model, inputs, 10)
    settings = {**GREEDY, "eos_token_id": -1, "forced_eos_token_id": None}
    assert torch.equal(generate(model, inputs, **settings), expected)
    assert len({tuple(row) for row in expected.tolist()}) == 3  # the three inputs get different texts
    changed = {**inputs, "pixel_values": inputs["pixel_values"].roll(1, 0)}
    assert not torch.equal(generate(model, changed, **settings), expected)


@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_pixels_rows_and_memory_give_the_same_text(model, inputs, mode: str):
    settings = MODES[mode]
    expected = generate(model, inputs, **settings)
    assert len(expected) == 3 * settings.get("num_return_sequences", 1)
    rows = model.get_image_rows(inputs["pixel_values"])
    texts = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(generate(model, {**texts, "image_embeds": rows}, **settings), expected)

    encoded, _ = model.model.encode(**inputs)
    for mask in (inputs["attention_mask"], torch.cat([torch.ones(rows.shape[:2]), texts["attention_mask"]], dim=1)):
        # a new object each time: generate() writes its beams into the one it gets
        known = {"encoder_outputs": BaseModelOutput(encoded.last_hidden_state), "attention_mask": mask}
        assert torch.equal(generate(model, known, **settings), expected)


@pytest.mark.parametrize("mode", ["static cache", "no cache"])
@torch.no_grad()
def test_caches_change_nothing(model, inputs, mode: str):
    assert torch.equal(generate(model, inputs, **MODES[mode]), generate(model, inputs, **GREEDY))


@pytest.mark.parametrize("padding_side", ["right", "left"])
@pytest.mark.parametrize("mode", ["greedy", "beams", "several beams"])
@torch.no_grad()
def test_a_batch_of_mixed_lengths_equals_one_by_one(model, inputs, mode: str, padding_side: str):
    if padding_side == "left":
        lengths = inputs["attention_mask"].sum(1).tolist()
        for name in ("input_ids", "attention_mask"):
            shifts = [inputs[name].shape[1] - length for length in lengths]
            inputs[name] = torch.stack([row.roll(shift) for row, shift in zip(inputs[name], shifts)])
    batch = texts_of(generate(model, inputs, **MODES[mode]))
    singles = []
    for place in range(3):
        kept = inputs["attention_mask"][place].bool()
        pixels = inputs["pixel_values"][place, None]
        if padding_side == "right":
            alone = {"input_ids": inputs["input_ids"][place, None, kept], "pixel_values": pixels}
        else:  # BART's positions are absolute, so the same text padded otherwise is another input
            alone = {name: inputs[name][place, None] for name in ("input_ids", "attention_mask")}
            alone["pixel_values"] = pixels
        singles += texts_of(generate(model, alone, **MODES[mode]))
    assert batch == singles


@pytest.mark.parametrize("mode", ["greedy", "beams"])
@torch.no_grad()
def test_forced_prefix_begins_the_text(model, inputs, tokenizer, mode: str):
    prefix = torch.tensor([[2, 0, *tokenizer("A picture of", add_special_tokens=False).input_ids]]).expand(3, -1)
    output = generate(model, {**inputs, "decoder_input_ids": prefix}, **MODES[mode])
    assert torch.equal(output[:, : prefix.shape[1]], prefix)
    assert output.shape[1] <= prefix.shape[1] + 10
    first = model(**inputs, decoder_input_ids=prefix).logits[:, -1].argmax(-1)
    if mode == "greedy":
        assert torch.equal(output[:, prefix.shape[1]], first)


@pytest.mark.usefixtures("deprecations_allowed")  # transformers' own assistants pass what it calls deprecated
@torch.no_grad()
def test_an_assistant_model_sees_the_image_too(make_model, inputs):
    """Assisted decoding writes the same as the model alone, with an equal assistant and with another one."""
    model, twin, stranger = make_model(), make_model(), make_model("resnet", seed=2)
    alone = {name: value[:1] for name, value in inputs.items()}
    expected = generate(model, alone, **GREEDY)
    looks = {}
    for assistant in (twin, stranger):
        tower = assistant.model.vision_tower
        hook = tower.register_forward_hook(lambda tower, *_: looks.__setitem__(id(tower), True))
        assert torch.equal(generate(model, alone, assistant_model=assistant, **GREEDY), expected)
        hook.remove()
    assert len(looks) == 2
    assert torch.equal(generate(model, alone, prompt_lookup_num_tokens=2, **GREEDY), expected)


@torch.no_grad()
def test_inputs_embeds_replace_ids(model, inputs):
    expected = generate(model, inputs, **GREEDY)
    embedded = {**inputs, "inputs_embeds": model.get_input_embeddings()(inputs.pop("input_ids"))}
    del embedded["input_ids"]
    assert torch.equal(generate(model, embedded, **GREEDY), expected)


@torch.no_grad()
def test_scores_and_attentions_are_returned(make_model, inputs):
    model = make_model("resnet")
    model.set_attn_implementation("eager")
    settings = {**GREEDY, "return_dict_in_generate": True, "output_scores": True, "output_attentions": True}
    output = generate(model, inputs, **settings)
    assert len(output.scores) == output.sequences.shape[1] - 1
    assert output.cross_attentions[0][0].shape == (3, 2, 1, 5 + inputs["input_ids"].shape[1])


@pytest.mark.slow
@pytest.mark.parametrize("tower", ["vit", "resnet"])
@torch.no_grad()
def test_compiled_equals_eager(make_model, inputs, tower: str):
    """Compile one graph without breaks: `forward`, and the decoding steps of `generate()` with a static cache."""
    model = make_model(tower)
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits, rtol=1e-4, atol=1e-4)
    expected = generate(model, inputs, **GREEDY)
    model.forward = torch.compile(model.forward, fullgraph=True)
    assert torch.equal(generate(model, inputs, **MODES["static cache"]), expected)
