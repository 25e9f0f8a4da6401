import pytest
import torch
from tiny_training import CAPTIONS, DIM, tiny_model, tiny_pairs, tiny_processor

from modeling_vlkd import VLKDForConditionalGeneration
from modeling_vlkd.trainers import align_text_projection
from modeling_vlkd.trainers.initialization import initialize_image_to_decoder, was_distilled


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


def batch_of(processor, pairs):
    tokens = processor.tokenizer([pair["caption"] for pair in pairs], padding=True, return_tensors="pt")
    return tokens.input_ids, tokens.attention_mask, torch.stack([pair["image_embeds"] for pair in pairs])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_is_new_until_its_matrices_are_trained(processor, tmp_path, dtype):
    model = tiny_model(processor).to(dtype)
    model.model.image_to_decoder.weight.data = torch.linalg.pinv(model.model.text_projection.weight.float()).to(dtype)
    model.save_pretrained(tmp_path)
    model = VLKDForConditionalGeneration.from_pretrained(tmp_path, dtype="auto")
    assert model.dtype == dtype
    assert not was_distilled(model)
    with torch.no_grad():
        model.model.text_projection.weight += 0.01 * torch.randn_like(model.model.text_projection.weight)
    assert was_distilled(model)
    assert not was_distilled(tiny_model(processor))
    scaled = tiny_model(processor)
    initialize_image_to_decoder(scaled, [batch_of(processor, tiny_pairs())])
    assert was_distilled(scaled)


def test_aligning_leaves_a_new_model_new_and_a_distilled_one_as_it_is(processor):
    model = tiny_model(processor)
    for _ in range(2):
        align_text_projection(model, processor, CAPTIONS, torch.randn(len(CAPTIONS), DIM))
        assert not was_distilled(model)
    model.model.image_to_decoder.weight.data *= 2
    before = model.model.text_projection.weight.clone()
    with pytest.raises(ValueError, match=r"was distilled before.*leave `align_text_projection` out"):
        align_text_projection(model, processor, CAPTIONS, torch.randn(len(CAPTIONS), DIM))
    assert torch.equal(model.model.text_projection.weight, before)


def test_the_scale_is_one_of_all_pairs_however_they_are_batched(processor):
    pairs = tiny_pairs()
    scales = []
    for size in (12, 5):
        model = tiny_model(processor)
        batches = (batch_of(processor, pairs[first : first + size]) for first in range(0, 12, size))
        scales.append(initialize_image_to_decoder(model, batches))
    assert scales[0] == pytest.approx(scales[1], rel=1e-6)
    ids, mask, rows = batch_of(processor, pairs)
    with torch.no_grad():
        sentences = tiny_model(processor).get_text_features(ids, mask).pooler_output
    assert scales[0] == pytest.approx((sentences.norm(dim=-1).mean() / rows.norm(dim=-1).mean()).item(), rel=1e-6)


def test_w_e_starts_where_sentences_meet_clips_texts():
    """CLIP's texts are a rotation of BART's sentences here, and that rotation is found; W'_e turns back."""
    processor = tiny_processor()
    model = tiny_model(processor)
    captions = [f"a {size} {color} box" for size in ("small", "big", "thin") for color in ("red", "teal", "blue")]
    inputs = processor.tokenizer(captions, padding=True, return_tensors="pt")
    base = model.base_model
    sentences = base.language_model.get_encoder()(**inputs).last_hidden_state[:, 0].detach()
    rotation = torch.nn.init.orthogonal_(torch.empty_like(base.text_projection.weight))
    align_text_projection(model, processor, captions, sentences @ rotation.T)
    weight = base.text_projection.weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), atol=1e-5, rtol=0)
    torch.testing.assert_close(base.text_to_decoder.weight, weight.T)
    torch.testing.assert_close(base.image_to_decoder.weight, weight.T)
    found = torch.nn.functional.cosine_similarity(sentences @ weight.T, sentences @ rotation.T)
    assert found.min() > 0.99
