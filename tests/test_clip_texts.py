import pytest
import torch
from tiny_training import CAPTIONS, tiny_clip, tiny_processor
from transformers import CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection, SiglipConfig, SiglipModel

from modeling_vlkd.evaluation.clip_texts import CLIPTextTower
from modeling_vlkd.trainers import TextTeacher


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def clip_folder(processor, tmp_path_factory):
    return tiny_clip(tmp_path_factory.mktemp("clip"), processor)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_tower_stored_in_half_precision_computes_in_fp32(clip_folder, processor, tmp_path, dtype):
    clip = CLIPModel.from_pretrained(clip_folder).to(dtype)
    clip.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    tokens = processor.tokenizer(CAPTIONS, padding=True, truncation=True, max_length=16, return_tensors="pt")
    with torch.no_grad():
        expected = clip.float().get_text_features(**tokens).pooler_output
    torch.testing.assert_close(CLIPTextTower(tmp_path).embed(CAPTIONS), expected)
    assert torch.equal(TextTeacher(tmp_path).embed(CAPTIONS), CLIPTextTower(tmp_path).embed(CAPTIONS))


def test_siglip_reads_texts_padded_to_their_full_length(processor, tmp_path):
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    text = layers | {"vocab_size": len(processor.tokenizer), "max_position_embeddings": 16, "projection_size": 16}
    siglip = SiglipModel(SiglipConfig(text_config=text, vision_config=layers | {"image_size": 8, "patch_size": 4}))
    siglip.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    ids = processor.tokenizer([CAPTIONS[0]], padding="max_length", max_length=16, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = siglip.eval().get_text_features(input_ids=ids).pooler_output
    torch.testing.assert_close(CLIPTextTower(tmp_path).embed([CAPTIONS[0]]), expected)


def test_a_clip_without_a_text_tower_is_refused(tmp_path):
    config = CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="without a text tower"):
        CLIPTextTower(tmp_path)
