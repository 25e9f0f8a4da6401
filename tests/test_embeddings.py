import torch
from PIL import Image
from tiny_training import CAPTIONS, DIM, tiny_clip, tiny_model, tiny_processor

from modeling_vlkd.evaluation.clip_texts import CLIPTextTower
from modeling_vlkd.evaluation.embeddings import WithTextsOf, read_embedding, write_embedding
from modeling_vlkd.evaluation.vlkd_model import VLKDAdapter


def test_a_model_with_the_texts_of_its_clip_embeds_as_that_clip(tmp_path):
    """Pictures by the model, texts by the other's text tower, neither by the model's own sentences."""
    processor = tiny_processor()
    tiny_clip(tmp_path, processor)
    model, tower = VLKDAdapter(tiny_model(processor), processor), CLIPTextTower(tmp_path)
    joined = WithTextsOf(model, tower)
    pictures = [Image.new("RGB", (8, 8), color) for color in ("red", "teal")]
    rows = joined.look(pictures)
    assert torch.equal(joined.embed_images(rows), model.embed_images(pictures))
    assert torch.equal(joined.embed_texts(CAPTIONS[:3]), tower.embed(CAPTIONS[:3]))
    assert joined.embed_texts(CAPTIONS[:3]).shape == model.embed_texts(CAPTIONS[:3]).shape == (3, DIM)
    assert not torch.allclose(joined.embed_texts(CAPTIONS[:3]), model.embed_texts(CAPTIONS[:3]))


def test_an_embedding_is_the_same_bit_for_bit_after_reading():
    embedding = torch.tensor([1 / 3, -0.0, 1e-42, 3e38])  # a negative zero, a subnormal number
    read = read_embedding(write_embedding(embedding))
    assert read.view(torch.int32).equal(embedding.view(torch.int32))
    half = torch.tensor([1 / 3], dtype=torch.bfloat16)
    assert read_embedding(write_embedding(half)).equal(half.float())
