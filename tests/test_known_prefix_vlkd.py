"""The known beginning of a text is forced, however `generate()` is called."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import GenerationConfig, LogitsProcessorList, pipeline

from modeling_vlkd import VLKDForConditionalGeneration
from modeling_vlkd.known_prefix_vlkd import default_generation_config, join_rows, known_prefixes, prefix_lengths


MASK, PAD = 4, 1


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> VLKDForConditionalGeneration:
    return VLKDForConditionalGeneration.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="module")
def inputs(processor, pixel_values) -> dict:
    """Make prompts whose known beginnings have three lengths; the last one has no known beginning."""
    texts = [*processor.caption_prompts(1), *processor.question_prompts(["is there a circle?"]), "a box."]
    return {**processor(text=texts, return_tensors="pt"), "pixel_values": pixel_values}


def test_what_stands_before_the_first_mask_is_known():
    ids = torch.tensor(
        [[0, 7, 8, MASK, MASK, 2], [0, MASK, 9, 2, PAD, PAD], [PAD, PAD, 0, 7, MASK, 2], [0, 7, 8, 9, 5, 2]]
    )
    first, lengths = prefix_lengths(ids, MASK, PAD)
    assert first.tolist() == [0, 0, 2, 0]
    assert lengths.tolist() == [3, 1, 2, 0]


def test_prompts_are_grouped_by_what_is_known():
    ids = torch.tensor([[0, 7, MASK, 2, PAD], [0, 9, MASK, 8, 2], [0, 7, 8, 2, PAD], [PAD, 0, 5, MASK, 2]])
    config = GenerationConfig(force_prefix=True, mask_token_id=MASK, pad_token_id=PAD)
    [(none, nothing), (some, known)] = known_prefixes(config, ids, start_token_id=2)
    assert (none, nothing) == ([2], None)
    assert some == [0, 1, 3]
    assert known.tolist() == [[2, 0, 7], [2, 0, 9], [2, 0, 5]]
    for other in ({"force_prefix": False}, {"mask_token_id": None}):
        assert known_prefixes(GenerationConfig(**(config.to_dict() | other)), ids, start_token_id=2) == []
    assert known_prefixes(GenerationConfig(), ids, start_token_id=2) == []  # made without our fields


def test_groups_are_put_in_order_again():
    parts = [([2], torch.tensor([[5], [6]])), ([0, 1], torch.tensor([[1, 1], [2, 2], [3, 3], [4, 4]]))]
    assert join_rows(parts, pad_token_id=0).tolist() == [[1, 1], [2, 2], [3, 3], [4, 4], [5, 0], [6, 0]]


@pytest.mark.parametrize(
    "settings", [{"num_beams": 1}, {"num_beams": 3}, {"num_beams": 1, "do_sample": True}], ids=str
)
def test_each_text_begins_as_its_prompt(model, inputs, tokenizer, settings: dict):
    torch.manual_seed(0)
    output = model.generate(**inputs, **settings)
    texts = tokenizer.batch_decode(output, skip_special_tokens=True)
    assert texts[0].startswith("A picture of")
    assert texts[1].startswith("is there a circle? Answer:")
    free = tokenizer.batch_decode(model.generate(**inputs, **settings, force_prefix=False), skip_special_tokens=True)
    assert not free[0].startswith("A picture of")
    if not settings.get("do_sample"):
        assert texts[2] == free[2]


@pytest.mark.parametrize("num_beams", [1, 4])
@pytest.mark.parametrize("eos_bias", [0.0, 3.0, 4.0, 5.0])
def test_other_texts_in_the_batch_change_nothing(make_model, inputs, num_beams: int, eos_bias: float):
    """The words and the length of a text depend only on its own prompt, also if the beginnings differ in length."""
    settings = GenerationConfig(num_beams=num_beams, max_new_tokens=8, num_return_sequences=num_beams)
    for seed in (1, 2, 3):
        model = make_model(seed=seed)
        model.generation_config = default_generation_config(model.config.text_config, MASK)
        model.final_logits_bias[0, 2] = eos_bias
        together = model.generate(**inputs, generation_config=settings).chunk(3)
        for place in range(3):
            kept = inputs["attention_mask"][place].bool()
            pixels = inputs["pixel_values"][place, None]
            expected = model.generate(
                input_ids=inputs["input_ids"][place, None, kept], pixel_values=pixels, generation_config=settings
            )
            for row, alone in zip(together[place], expected, strict=True):
                assert row[row != PAD].tolist() == alone[alone != PAD].tolist()


def test_logits_processors_may_come_by_place(model, inputs):
    """As in transformers, it is the third argument. The processor here ends every text at once."""

    def end(written, scores):
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([2]), 0.0)

    texts = {name: value for name, value in inputs.items() if name != "input_ids"}
    output = model.generate(inputs["input_ids"], None, LogitsProcessorList([end]), **texts, num_beams=1)
    assert (output == 2).sum(dim=1).tolist() == [2, 2, 2]  # what starts the decoder, and the end


def test_outputs_of_several_lengths_have_no_scores(model, inputs):
    with pytest.raises(ValueError, match="return_dict_in_generate needs prompts whose words before the masks"):
        model.generate(**inputs, return_dict_in_generate=True)
    alone = {name: value[:1] for name, value in inputs.items()}
    assert model.generate(**alone, return_dict_in_generate=True).sequences.shape[0] == 1


def test_forced_tokens_are_not_new(model, inputs, processor):
    alone = {name: value[1:2] for name, value in inputs.items()}
    known = len(processor.tokenizer("is there a circle? Answer:").input_ids) - 1
    output = model.generate(**alone, max_new_tokens=5, min_new_tokens=5, num_beams=1)
    assert output.shape[1] == 1 + known + 5


def test_a_beginning_of_ones_own_is_left_alone(model, inputs):
    own = torch.tensor([[2, 0, 9, 9]] * 3)
    output = model.generate(**inputs, decoder_input_ids=own, num_beams=1, max_new_tokens=4)
    expected = model.generate(**inputs, decoder_input_ids=own, num_beams=1, max_new_tokens=4, force_prefix=False)
    assert torch.equal(output, expected)


def test_memory_that_is_known_already_is_written_from_alike(model, inputs):
    expected = model.generate(**inputs, num_beams=1)
    with torch.no_grad():
        memory, _ = model.model.encode(**inputs, output_hidden_states=True)  # a tuple of tensors within
    known = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "encoder_outputs": memory}
    assert torch.equal(model.generate(**known, num_beams=1), expected)


def test_the_choice_is_kept_with_the_checkpoint(tiny_checkpoint, tokenizer, tmp_path):
    model = VLKDForConditionalGeneration.from_pretrained(tiny_checkpoint)
    assert model.generation_config.mask_token_id == tokenizer.mask_token_id
    model.generation_config.force_prefix = False
    model.save_pretrained(tmp_path)
    assert VLKDForConditionalGeneration.from_pretrained(tmp_path).generation_config.force_prefix is False


def test_a_model_put_together_knows_its_mask(clip_folder, bart_folder, tokenizer):
    model = VLKDForConditionalGeneration.from_vision_text_pretrained(clip_folder, bart_folder)
    assert model.generation_config.force_prefix is True
    assert model.generation_config.mask_token_id == tokenizer.mask_token_id


def test_an_image_alone_is_refused_as_in_forward(model, pixel_values):
    rows = model.get_image_rows(pixel_values)
    for image in ({"pixel_values": pixel_values}, {"image_embeds": rows}):
        for call in (model, model.generate):
            with pytest.raises(ValueError, match=r"Expected input_ids .* beside the image: a question, or a prompt"):
                call(**image)


def test_every_way_of_asking_gives_one_answer(tiny_checkpoint, processor):
    """`generate()` as in the README, the pipelines, and a chat."""
    picture = Image.new("RGB", (60, 50), "teal")
    question = "what color is the shape?"
    model = VLKDForConditionalGeneration.from_pretrained(tiny_checkpoint)
    for force_prefix in (True, False):
        model.generation_config.force_prefix = force_prefix
        parts = {"model": model, "processor": processor}
        [answered] = pipeline("visual-question-answering", **parts)(image=picture, question=question)
        [captioned] = pipeline("image-captioning", **parts)(picture)
        inputs = processor(images=picture, text=processor.question_prompts([question]), return_tensors="pt")
        texts = processor.batch_decode(model.generate(**inputs), skip_special_tokens=True)
        assert processor.extract_answers(texts) == [answered["answer"]]
        inputs = processor(images=picture, text=processor.caption_prompts(1), return_tensors="pt")
        texts = processor.batch_decode(model.generate(**inputs), skip_special_tokens=True)
        assert processor.extract_captions(texts) == [captioned["caption"]]
        talker = pipeline("image-text-to-text", **parts)
        for words, expected in ((question, answered["answer"]), ("", captioned["caption"])):
            content = [{"type": "image", "image": picture}, {"type": "text", "text": words}]
            [reply] = talker(text=[{"role": "user", "content": content}], return_full_text=False)
            assert reply["generated_text"] == expected
