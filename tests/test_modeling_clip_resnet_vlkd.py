import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from random_weights import random_pictures, randomize, relative_difference

from modeling_vlkd.configuration_clip_resnet_vlkd import CLIPResNetVisionConfig
from modeling_vlkd.conversion.clip_rules import RESNET_RULES
from modeling_vlkd.conversion.state_dicts import convert_state_dict
from modeling_vlkd.modeling_clip_resnet_vlkd import CLIPResNetVisionModelWithProjection


SMALL = {"layers": (2, 1, 3, 1), "width": 8, "num_attention_heads": 4, "image_size": 96, "projection_dim": 12}
PUBLISHED = {
    "RN50": {"layers": (3, 4, 6, 3), "width": 64, "image_size": 224, "projection_dim": 1024},
    "RN101": {"layers": (3, 4, 23, 3), "width": 64, "image_size": 224, "projection_dim": 512},
    "RN50x4": {"layers": (4, 6, 10, 6), "width": 80, "image_size": 288, "projection_dim": 640},
    "RN50x16": {"layers": (6, 8, 18, 8), "width": 96, "image_size": 384, "projection_dim": 768},
    "RN50x64": {"layers": (3, 15, 36, 10), "width": 128, "image_size": 448, "projection_dim": 1024},
}


def twins(sizes: dict) -> tuple[ModifiedResNet, CLIPResNetVisionModelWithProjection]:
    """Make open_clip's tower with random tensors, and ours with the same weights."""
    sizes = {"num_attention_heads": sizes["width"] * 32 // 64, **sizes}
    reference = ModifiedResNet(
        sizes["layers"], sizes["projection_dim"], sizes["num_attention_heads"], sizes["image_size"], sizes["width"]
    )
    randomize(reference)
    model = CLIPResNetVisionModelWithProjection(CLIPResNetVisionConfig(**sizes)).eval()
    source = {f"visual.{key}": tensor for key, tensor in reference.state_dict().items()}
    model.load_state_dict(convert_state_dict(source, RESNET_RULES, model.state_dict()))
    return reference, model


@pytest.fixture(scope="module")
def small():
    return twins(SMALL)


@pytest.mark.parametrize("sizes", [SMALL, {**SMALL, "layers": (1, 2, 1, 2), "image_size": 64}])
def test_image_embedding_equals_open_clip(sizes):
    reference, model = twins(sizes)
    pixels = random_pictures(3, sizes["image_size"])
    with torch.no_grad():
        expected, output = reference(pixels), model(pixels)
    assert relative_difference(output.image_embeds, expected) < 1e-5
    assert relative_difference(expected[0], expected[1]) > 0.1  # the three pictures differ, so the test can fail


@pytest.mark.slow
@pytest.mark.parametrize("name", ["RN50", "RN101", "RN50x4"])  # test_open_clip_source.py has the two of the paper
def test_published_towers_equal_open_clip_at_full_size(name):
    reference, model = twins(PUBLISHED[name])
    pixels = random_pictures(1, PUBLISHED[name]["image_size"])
    with torch.no_grad():
        assert relative_difference(model(pixels).image_embeds, reference(pixels)) < 1e-5


def test_every_row_is_the_attention_of_its_own_position(small):
    """Row i of the output equals CLIP's attention pool with the query of position i instead of the mean."""
    reference, model = small
    pixels = random_pictures(2, 96)
    with torch.no_grad():
        rows = model(pixels).last_hidden_state
        features = reference.layer4(reference.layer3(reference.layer2(reference.layer1(reference.stem(pixels)))))
        pool = reference.attnpool
        tokens = features.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + pool.positional_embedding
        heads = [p(tokens).unflatten(-1, (4, -1)).transpose(1, 2) for p in (pool.q_proj, pool.k_proj, pool.v_proj)]
        weights = (heads[0] @ heads[1].transpose(-1, -2) * heads[0].shape[-1] ** -0.5).softmax(-1)
        expected = pool.c_proj((weights @ heads[2]).transpose(1, 2).flatten(2))
    assert rows.shape == (2, 10, 12)  # 1 + (96 / 32)^2 rows
    assert relative_difference(rows, expected) < 1e-5


@pytest.mark.parametrize(("name", "rows"), [("RN50x16", 145), ("RN50x64", 197)])
def test_rows_of_the_papers_towers(name, rows):
    config = CLIPResNetVisionConfig(**PUBLISHED[name], num_attention_heads=PUBLISHED[name]["width"] // 2)
    assert config.num_rows == rows
    with torch.device("meta"):
        model = CLIPResNetVisionModelWithProjection(config)
    assert model.attention_pool.position_embedding.shape == (rows, 32 * config.width)


def test_outputs_are_consistent(small):
    _, model = small
    pixels = random_pictures(2, 96)
    output = model(pixels, output_hidden_states=True)
    assert [tuple(state.shape[1:]) for state in output.hidden_states] == [
        (8, 24, 24), (32, 24, 24), (64, 12, 12), (128, 6, 6), (256, 3, 3)
    ]  # fmt: skip
    torch.testing.assert_close(output.pooler_output, output.last_hidden_state[:, 0])
    torch.testing.assert_close(model(pixels, return_dict=False)[0], output.image_embeds)


def test_eager_attention_equals_sdpa_and_returns_weights(small):
    _, model = small
    pixels = random_pictures(2, 96)
    expected = model(pixels).last_hidden_state
    model.set_attn_implementation("eager")
    output = model(pixels, output_attentions=True)
    model.set_attn_implementation("sdpa")
    torch.testing.assert_close(output.last_hidden_state, expected, rtol=1e-4, atol=1e-5)
    assert output.attentions[0].shape == (2, 4, 10, 10)
    torch.testing.assert_close(output.attentions[0].sum(-1), torch.ones(2, 4, 10))


def test_saved_tower_loads_to_equal_outputs(small, tmp_path):
    _, model = small
    model.save_pretrained(tmp_path)
    loaded = CLIPResNetVisionModelWithProjection.from_pretrained(tmp_path)
    pixels = random_pictures(1, 96)
    assert loaded.config.layers == SMALL["layers"]
    torch.testing.assert_close(loaded(pixels).last_hidden_state, model(pixels).last_hidden_state, rtol=0, atol=0)


def test_new_tower_is_initialized_and_gives_every_parameter_a_gradient():
    model = CLIPResNetVisionModelWithProjection(CLIPResNetVisionConfig(**SMALL))
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    model(random_pictures(2, 96)).last_hidden_state.square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": (3, 4, 6)}, "four stages"),
        ({"layers": (3, 0, 6, 3)}, "four stages"),
        ({"num_attention_heads": 7}, "num_attention_heads=7"),
        ({"image_size": 100}, "image_size=100"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(Exception, match=message):
        CLIPResNetVisionConfig(**{**SMALL, **change})


def test_pictures_of_another_size_are_refused(small):
    with pytest.raises(ValueError, match=r"\(batch, 3, 96, 96\), got \(1, 3, 64, 64\)"):
        small[1](torch.randn(1, 3, 64, 64))
