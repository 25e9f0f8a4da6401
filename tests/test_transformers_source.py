import json
import shutil

import pytest
import torch
from random_weights import random_pictures, relative_difference
from safetensors.torch import load_file, save_file
from tiny_sources import TRANSFORMERS_CLIPS, save_transformers_clip
from transformers import (
    CLIPImageProcessor,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
    MetaClip2VisionModelWithProjection,
    SiglipVisionModel,
)

from modeling_vlkd.configuration_clip_resnet_vlkd import CLIPResNetVisionConfig
from modeling_vlkd.conversion import sources
from modeling_vlkd.conversion.errors import ConversionError, UnsupportedError
from modeling_vlkd.conversion.resolving import open_vision
from modeling_vlkd.modeling_clip_resnet_vlkd import CLIPResNetVisionModelWithProjection
from modeling_vlkd.towers_vlkd import VISION_TOWERS


def token_ids() -> torch.Tensor:
    ids = torch.randint(3, 50, (2, 16), generator=torch.Generator().manual_seed(5))
    ids[0, 6], ids[1, 15] = 57, 57
    return ids


@pytest.mark.parametrize("kind", TRANSFORMERS_CLIPS)
def test_vision_tower_equals_the_whole_clips(kind, tmp_path):
    save_transformers_clip(kind, tmp_path)
    source = open_vision(str(tmp_path))
    model, tower = TRANSFORMERS_CLIPS[kind][0].from_pretrained(tmp_path).eval(), source.vision_tower()
    pixels = random_pictures(3, 32)
    with torch.no_grad():
        expected = model.get_image_features(pixel_values=pixels).pooler_output
        rows = VISION_TOWERS[tower.config.model_type].rows(tower(pixel_values=pixels))
        assert relative_difference(source.vision_reference().encode(pixels), expected) == 0
    assert relative_difference(rows[:, 0], expected) < 1e-6
    assert relative_difference(expected[0], expected[1]) > 0.01


@pytest.mark.parametrize("kind", [kind for kind in TRANSFORMERS_CLIPS if kind != "chinese_clip"])
def test_text_teacher_equals_the_whole_clips(kind, tmp_path):
    save_transformers_clip(kind, tmp_path / "clip")
    source = open_vision(str(tmp_path / "clip"))
    model = TRANSFORMERS_CLIPS[kind][0].from_pretrained(tmp_path / "clip").eval()
    teacher = source.text_teacher()
    teacher.save_pretrained(tmp_path / "teacher")
    loaded = type(teacher).from_pretrained(tmp_path / "teacher").eval()
    with torch.no_grad():
        expected = model.get_text_features(input_ids=token_ids()).pooler_output
        output = loaded(input_ids=token_ids())
        assert relative_difference(source.text_reference().encode(token_ids()), expected) == 0
    embeds = output.pooler_output if kind == "siglip" else output.text_embeds
    assert relative_difference(embeds, expected) < 1e-6
    assert relative_difference(expected[0], expected[1]) > 0.01


def test_chinese_clips_text_tower_has_no_class_of_its_own(tmp_path):
    save_transformers_clip("chinese_clip", tmp_path)
    with pytest.raises(UnsupportedError, match="no class for the text tower"):
        open_vision(str(tmp_path)).text_teacher()


def test_half_precision_and_shards_are_read(tmp_path):
    save_transformers_clip("clip", tmp_path)
    model = TRANSFORMERS_CLIPS["clip"][0].from_pretrained(tmp_path, dtype=torch.float16)
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    tower = open_vision(str(tmp_path)).vision_tower()
    expected = model.visual_projection.weight.float()
    torch.testing.assert_close(tower.visual_projection.weight, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["clip", "metaclip_2", "siglip", "resnet"])
def test_a_vision_tower_by_itself_is_enough(kind, tmp_path):
    if kind == "resnet":
        config = CLIPResNetVisionConfig(layers=(1, 1, 1, 1), width=8, num_attention_heads=4, image_size=32)
        expected = CLIPResNetVisionModelWithProjection(config)
    else:
        save_transformers_clip(kind, tmp_path / "clip")
        classes = {"clip": CLIPVisionModelWithProjection, "metaclip_2": MetaClip2VisionModelWithProjection}
        expected = classes.get(kind, SiglipVisionModel).from_pretrained(tmp_path / "clip")
    expected.eval().save_pretrained(tmp_path / "tower")
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(tmp_path / "tower")
    source = open_vision(str(tmp_path / "tower"))
    pixels, tower = random_pictures(2, 32), source.vision_tower()
    with torch.no_grad():
        embeds = VISION_TOWERS[tower.config.model_type].rows(tower(pixel_values=pixels))[:, 0]
        reference = source.vision_reference().encode(pixels)
    assert relative_difference(embeds, reference) < 1e-6
    with pytest.raises(UnsupportedError, match="without a text tower"):
        source.text_teacher()


def test_projection_of_the_whole_rules_over_that_of_the_vision_configuration(tmp_path):
    """In published configurations the vision tower's `projection_dim` is the default; CLIP ignores it there."""
    save_transformers_clip("clip", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["projection_dim"] = 99
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert open_vision(str(tmp_path)).vision_tower().config.projection_dim == 24


@pytest.mark.parametrize(
    ("model_type", "message"),
    [("siglip2", "NaFlex"), ("clip_text_model", "text tower of a CLIP alone"), ("resnet", "'resnet', not a CLIP")],
)
def test_other_models_are_refused_by_name(model_type, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ConversionError, match=message):
        open_vision(str(tmp_path))


def replace_tensors(folder, **changes):
    tensors = load_file(folder / "model.safetensors")
    for name, change in changes.items():
        tensor = tensors.pop(key := name.replace("__", "."), None)
        if change is not None:
            tensors[key] = change(tensor)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visual_projection__weight": None}, "missing 'visual_projection.weight'"),
        ({"visual_projection__extra": lambda _: torch.zeros(2)}, "unknown 'visual_projection.extra'"),
        ({"visual_projection__weight": lambda t: t[:5].clone()}, r"'visual_projection.weight' has shape \(5, 32\)"),
        ({"visual_projection__weight": lambda t: t * float("nan")}, "not finite in 'visual_projection.weight'"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, message, tmp_path):
    save_transformers_clip("clip", tmp_path)
    replace_tensors(tmp_path, **change)
    with pytest.raises(ConversionError, match=message):
        open_vision(str(tmp_path)).vision_tower()


def test_teacher_is_clips_text_class(tmp_path):
    save_transformers_clip("clip", tmp_path)
    assert isinstance(open_vision(str(tmp_path)).text_teacher(), CLIPTextModelWithProjection)


def test_of_a_hub_repository_only_what_is_needed_is_downloaded(tmp_path, monkeypatch):
    save_transformers_clip("clip", tmp_path / "repository")
    for name in ("model.h5", "pytorch_model.bin", "open_clip_pytorch_model.bin"):
        (tmp_path / "repository" / name).write_text("another format")

    def download(name: str, allow_patterns: list[str]) -> str:
        assert name == "some/clip"
        (tmp_path / "cache").mkdir(exist_ok=True)
        for pattern in allow_patterns:
            for path in (tmp_path / "repository").glob(pattern):
                shutil.copy(path, tmp_path / "cache")
        return str(tmp_path / "cache")

    monkeypatch.setattr(sources, "snapshot_download", download)
    source = open_vision("some/clip")
    assert source.vision_tower().config.projection_dim == 24
    assert len(source.tokenizer()) == 60
    weights = {path.name for path in (tmp_path / "cache").iterdir() if path.suffix not in (".json", ".txt")}
    assert weights == {"model.safetensors"}
