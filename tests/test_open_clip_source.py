import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import build_model_from_openai_state_dict
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from random_weights import random_pictures, randomize, relative_difference
from safetensors.torch import save_file
from tiny_sources import (
    MODEL_CFGS,
    model_cfg,
    open_clip_model,
    openai_model,
    save_open_clip_folder,
    save_openai_archive,
)
from torch import Tensor
from transformers import BartConfig

from modeling_vlkd import VLKDConfig, VLKDModel
from modeling_vlkd.conversion.errors import StateDictError, UnsupportedError
from modeling_vlkd.conversion.open_clip_configs import image_processor, openai_model_cfg, text_config, vision_config
from modeling_vlkd.conversion.open_clip_source import OpenCLIPSource, build_clip_tokenizer, openai_preprocess
from modeling_vlkd.conversion.resolving import open_vision


# Sizes of OpenAI's nine models (`model_configs` of open_clip has the same under these names).
PUBLISHED = ["RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336"]


def assert_towers_equal(source: OpenCLIPSource, reference: torch.nn.Module):
    """Assert that both converted towers give the reference's embeddings, on inputs whose embeddings differ."""
    pixels = random_pictures(3, source.model_cfg["vision_cfg"]["image_size"])
    ids = token_ids()
    with torch.no_grad():
        images, texts = reference.encode_image(pixels), reference.encode_text(ids)
        assert relative_difference(source.vision_tower()(pixels).image_embeds, images) < 1e-5
        assert relative_difference(source.text_teacher()(ids).text_embeds, texts) < 1e-5
        assert relative_difference(source.vision_reference().encode(pixels), images) < 1e-6
        assert relative_difference(source.text_reference().encode(ids), texts) < 1e-6
    assert relative_difference(images[0], images[1]) > 0.01
    assert relative_difference(texts[0], texts[1]) > 0.01


def token_ids() -> Tensor:
    """Make two texts of different lengths. Each ends with the highest id; zeros follow, with which open_clip pads."""
    ids = torch.randint(1, 59, (2, 12), generator=torch.Generator().manual_seed(3))
    ids[0, 4:], ids[0, 4], ids[1, 11] = 0, 59, 59
    return ids


@pytest.mark.parametrize("kind", MODEL_CFGS)
def test_open_clip_folder(kind, tmp_path):
    reference = save_open_clip_folder(kind, tmp_path / "source")
    assert_towers_equal(open_vision(str(tmp_path / "source")), reference)
    assert_towers_equal(open_vision(f"local-dir:{tmp_path / 'source'}"), reference)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("old_format", [False, True])
def test_openai_state_dict(kind, old_format, tmp_path):
    state = openai_model(kind).state_dict()
    torch.save(state, tmp_path / "clip.pt", _use_new_zipfile_serialization=not old_format)
    source = open_vision(str(tmp_path / "clip.pt"))
    assert_towers_equal(source, build_model_from_openai_state_dict(dict(state)).float())


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_openai_torchscript_archive(kind, tmp_path, monkeypatch):
    save_openai_archive(kind, tmp_path / "clip.pt")
    state = torch.jit.load(tmp_path / "clip.pt").state_dict()
    monkeypatch.setattr(torch.jit, "load", None)
    source = open_vision(str(tmp_path / "clip.pt"))
    assert set(source.tensors) == set(state)
    assert {tensor.dtype for tensor in state.values()} >= {torch.float16, torch.float32}
    for key, tensor in state.items():
        torch.testing.assert_close(source.tensors[key], tensor, rtol=0, atol=0)
    state.pop("attn_mask")  # computed, so the plain model's state does not have it
    assert_towers_equal(source, build_model_from_openai_state_dict(dict(state)).float())


def test_quick_gelu_is_not_gelu():
    """The results differ by far more than the limit of the proof, so a wrong activation would be found."""
    plain, quick = (open_clip_model("vit", quick_gelu=quick) for quick in (False, True))
    pixels = random_pictures(2, 32)
    with torch.no_grad():
        assert relative_difference(plain.encode_image(pixels), quick.encode_image(pixels)) > 1e-3
    assert vision_config(model_cfg("vit", quick_gelu=True)).hidden_act == "quick_gelu"
    assert vision_config(model_cfg("vit")).hidden_act == "gelu"


@pytest.mark.parametrize("wrapper", [None, "state_dict"])
def test_open_clip_name_with_a_checkpoint(wrapper, tmp_path, monkeypatch):
    reference = open_clip_model("vit")
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: model_cfg("vit") if name == "ViT-T-8" else None)
    if wrapper is None:
        save_file(reference.state_dict(), tmp_path / "model.safetensors")
        path = tmp_path / "model.safetensors"
    else:  # as a training run with data parallelism writes it
        state = {f"module.{key}": tensor for key, tensor in reference.state_dict().items()}
        path = tmp_path / "epoch_3.pt"
        torch.save({"epoch": 3, "name": "run", wrapper: state, "optimizer": {"state": {}}}, path)
    assert_towers_equal(open_vision(f"ViT-T/8:{path}"), reference)


def test_open_clip_tag_knows_activation_and_preprocessing(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    reference = open_clip_model("vit", quick_gelu=True)
    save_file(reference.state_dict(), path)
    tag = {"file": str(path), "quick_gelu": True, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    tag |= {"interpolation": "bilinear", "resize_mode": "squash"}
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: model_cfg("vit"))
    monkeypatch.setattr("modeling_vlkd.conversion.open_clip_source.get_pretrained_cfg", lambda *_: tag)
    source = open_vision("ViT-T-8:mine")
    assert_towers_equal(source, reference)
    assert (source.preprocess.mean, source.preprocess.resize_mode) == ((0.5, 0.5, 0.5), "squash")
    assert source.preprocess.size == 32


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_decide_openais_architectures(name):
    """Compare with open_clip's own descriptions of the nine published models; the tensors are on the meta device."""
    cfg = open_clip.get_model_config(name)
    with torch.device("meta"):
        tensors = open_clip.model.CLIP(**cfg).state_dict()
    found = openai_model_cfg(tensors)
    assert vision_config(found).to_dict() == vision_config({**cfg, "quick_gelu": True}).to_dict()
    assert text_config(found).to_dict() == text_config({**cfg, "quick_gelu": True}).to_dict()


@pytest.mark.parametrize(
    # millions: parameters of the vision tower, its projection and W_i, which are published for the two ViTs only
    ("name", "dim", "millions"),
    [("ViT-B-16", 512, 86.72), ("ViT-L-14", 768, 304.75), ("RN50x16", 768, None), ("RN50x64", 1024, None)],
)
def test_parameter_counts_of_the_papers_clips(name, dim, millions):
    cfg = open_clip.get_model_config(name)
    with torch.device("meta"):
        reference = open_clip.model.CLIP(**cfg)
        model = VLKDModel(VLKDConfig(vision_config=vision_config(cfg), text_config=BartConfig()))
    tower = model.vision_tower.num_parameters()
    assert tower == sum(parameter.numel() for parameter in reference.visual.parameters())
    assert model.num_parameters() - tower - 1 == 406_291_456 + 3 * 1024 * dim  # 1: the temperature
    if millions is not None:
        assert round((tower + 1024 * dim) / 1e6, 2) == millions


@pytest.mark.slow
@pytest.mark.timeout(1200)  # RN50x64 alone is 623 million random numbers, and as many again to compare
@pytest.mark.parametrize("name", ["ViT-B-16", "ViT-L-14", "RN50x16", "RN50x64"])
def test_the_papers_clips_at_full_size(name, tmp_path):
    """Convert the paper's four CLIPs, with random tensors in a checkpoint like OpenAI's; compare with open_clip."""
    reference = randomize(open_clip.model.CLIP(**{**open_clip.get_model_config(name), "quick_gelu": True}))
    state = {key: t.half() if t.is_floating_point() else t for key, t in reference.state_dict().items()}
    torch.save(state, tmp_path / "clip.pt")
    reference.load_state_dict(state)  # so that both are rounded to half precision
    del state
    source = open_vision(str(tmp_path / "clip.pt"))
    pixels = random_pictures(2, source.preprocess.size)
    ids = open_clip.tokenize(["a photo of a cat", "the bicycle at the far end of the street"])
    with torch.no_grad():
        images, texts = reference.encode_image(pixels), reference.encode_text(ids)
        del reference
        assert relative_difference(source.vision_tower()(pixels).image_embeds, images) < 1e-5
        assert relative_difference(source.text_teacher()(ids).text_embeds, texts) < 1e-5
    assert relative_difference(images[0], images[1]) > 0.01
    assert relative_difference(texts[0], texts[1]) > 0.01


def make_picture(width: int, height: int) -> Image.Image:
    random = np.random.default_rng(width * height)
    coarse = Image.fromarray(random.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    noise = random.integers(-30, 30, (height, width, 3))
    pixels = np.asarray(coarse.resize((width, height)), dtype=np.int64) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(60, 80), (81, 60), (33, 32), (35, 32), (32, 39), (20, 17), (300, 50)])
def test_preprocessing_equals_open_clips(mode, interpolation, size, tmp_path):
    settings = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), "interpolation": interpolation, "resize_mode": mode}
    preprocess = openai_preprocess({"vision_cfg": {"image_size": 32}}, settings)
    picture = make_picture(*size)
    expected = image_transform_v2(preprocess, is_train=False)(picture)
    pixels = image_processor(preprocess)(picture, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-5)


def test_tokenizer_equals_open_clips():
    texts = ["a photo of a cat", "Hello,  World! It's 2024: they've 3.14 cats & dogs...", "naïve café — 日本語 😀", ""]
    tokenizer, expected = build_clip_tokenizer(77), open_clip.tokenizer.SimpleTokenizer()(texts)
    for text, row in zip(texts, expected.tolist(), strict=True):
        ids = tokenizer(text)["input_ids"]
        assert ids == row[: len(ids)]
        assert ids[-1] == 49407 == max(row)
    assert len(tokenizer) == 49408
    assert tokenizer.model_max_length == 77


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attentional_pool": True}, "attentional_pool=True"),
        ({"timm_model_name": "vit_base"}, "timm_model_name='vit_base'"),
        ({"pool_type": "avg"}, "pool_type='avg'"),
        ({"ls_init_value": 1e-4}, "ls_init_value=0.0001"),
        ({"no_ln_pre": True}, "no_ln_pre=True"),
        ({"brand_new": 1}, "brand_new=1"),
        ({"norm_kwargs": {"bias": False}}, "bias"),
        ({"image_size": [32, 64]}, "square"),
    ],
)
def test_vision_towers_that_compute_otherwise_are_refused(change, message):
    cfg = model_cfg("vit")
    cfg["vision_cfg"].update(change)
    with pytest.raises(ValueError, match=message):
        vision_config(cfg)


def test_the_vision_tower_is_converted_though_the_text_tower_cannot_be(tmp_path):
    cfg = model_cfg("vit")
    cfg["text_cfg"]["no_causal_mask"] = True
    source = OpenCLIPSource("x", "x", cfg, PreprocessCfg(size=32), open_clip_model("vit").state_dict())
    with pytest.raises(UnsupportedError, match="no_causal_mask=True"):
        source.text_teacher()
    assert source.vision_tower().config.projection_dim == 20


@pytest.mark.parametrize("key", ["visual.extra.weight", "extra.weight"])
def test_unknown_tensors_are_refused(key):
    state = {**open_clip_model("vit").state_dict(), key: torch.zeros(3)}
    source = OpenCLIPSource("x", "x", model_cfg("vit"), PreprocessCfg(size=32), state)
    with pytest.raises(StateDictError, match=f"unknown '{key}'"):
        source.vision_tower() if key.startswith("visual") else source.text_teacher()
