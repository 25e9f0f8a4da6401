import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tiny_card import shareable_copy

from modeling_vlkd import VLKDForConditionalGeneration, VLKDForSequenceClassification, VLKDModel
from modeling_vlkd.publishing.errors import PublishError
from modeling_vlkd.publishing.shareable import find_shareable


CODE = {
    *("configuration_clip_resnet_vlkd.py", "configuration_vlkd.py", "generation_vlkd.py", "image_processing_vlkd.py"),
    *("modeling_clip_resnet_vlkd.py", "modeling_vlkd.py", "pipeline_vlkd.py", "processing_vlkd.py"),
    *("known_prefix_vlkd.py", "towers_vlkd.py", "memory_vlkd.py", "hub_files_vlkd.py"),
    "modeling_zero_shot_vlkd.py",
}
REST = {"README.md", "config.json", "generation_config.json", "processor_config.json", "tokenizer_config.json"}
REST |= {"tokenizer.json"}


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return shareable_copy(tiny_checkpoint, tmp_path / "tiny")


def test_all_that_is_needed_to_load_is_published_and_nothing_else(folder: Path):
    for name in ("training_args.bin", "trainer_state.json", "optimizer.pt", ".secret", "my.png", "notes_vlkd.py"):
        (folder / name).write_text("private")
    for name in ("checkpoint-5/model.safetensors", "runs/events", "pictures/shown.png", "pictures/mine.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("private")
    with (folder / "README.md").open("a") as card:
        card.write("![shown](pictures/shown.png)")
    (folder / "LICENSE").write_text("Apache-2.0")

    found = find_shareable(folder)
    assert set(found.files) == CODE | REST | {"model.safetensors", "LICENSE", "pictures/shown.png"}
    assert set(found.left_out) == {
        *("training_args.bin", "trainer_state.json", "optimizer.pt", ".secret", "my.png", "notes_vlkd.py"),
        *("checkpoint-5/", "runs/", "pictures/mine.png"),
    }
    assert found.architecture == "VLKDForConditionalGeneration"
    assert found.size == sum((folder / name).stat().st_size for name in found.files)


def test_shards_are_published_with_their_index_and_no_stray_one(folder: Path):
    model = VLKDForConditionalGeneration.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    (folder / "model-00001-of-00009.safetensors").write_bytes(b"of an earlier run")
    index = json.loads((folder / "model.safetensors.index.json").read_text())

    found = find_shareable(folder)
    shards = set(index["weight_map"].values())
    assert len(shards) > 1
    assert set(found.files) == CODE | REST | shards | {"model.safetensors.index.json"}
    assert found.left_out == ["model-00001-of-00009.safetensors"]


@pytest.mark.parametrize("model_class", [VLKDForSequenceClassification, VLKDModel])
@pytest.mark.parametrize("tower", ["resnet", "siglip"])
def test_models_that_generate_nothing_need_not_say_how(model_class, tower: str, folder: Path, make_model):
    for name in ("model.safetensors", "generation_config.json"):
        (folder / name).unlink()
    make_model(tower, model_class).save_pretrained(folder)
    found = find_shareable(folder)
    assert set(found.files) == CODE | REST - {"generation_config.json"} | {"model.safetensors"}
    assert found.architecture == model_class.__name__


def edit_json(path: Path, **changes):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def drop_tensor(path: Path):
    tensors = load_file(path)
    tensors.pop("model.text_projection.weight")
    save_file(tensors, path, {"format": "pt"})


def flip_header(path: Path):
    content = bytearray(path.read_bytes())
    content[20] ^= 0xFF
    path.write_bytes(content)


# Each: a change of a good checkpoint, and a part of the line that is then said.
DAMAGES = {
    "no config": (lambda f: (f / "config.json").unlink(), "lacks config.json; save the model into it again"),
    "cut config": (lambda f: (f / "config.json").write_text("{\n"), "config.json, line 2: no JSON"),
    "list for config": (lambda f: (f / "config.json").write_text("[]"), "no JSON object but []"),
    "binary config": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), "config.json is no JSON"),
    "other model": (lambda f: edit_json(f / "config.json", model_type="bart"), "a model of type 'bart', not 'vlkd'"),
    "other class": (lambda f: edit_json(f / "config.json", architectures=["VLKDProcessor"]), "no model of VLKD"),
    "wrong value": (lambda f: edit_json(f / "config.json", text_pooling="max"), "text_pooling='max'"),
    "wrong width": (lambda f: edit_json(f / "config.json", projection_dim=7), "projection_dim=7"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
    "cut weights": (lambda f: truncate(f / "model.safetensors"), "model.safetensors is truncated or damaged"),
    "flipped bit": (lambda f: flip_header(f / "model.safetensors"), "model.safetensors is truncated or damaged"),
    "missing tensor": (lambda f: drop_tensor(f / "model.safetensors"), "lacks 1 of the model's tensors"),
    "no generation": (lambda f: (f / "generation_config.json").unlink(), "lacks generation_config.json"),
    "no processor": (lambda f: (f / "processor_config.json").unlink(), "lacks processor_config.json; save the proc"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "lacks tokenizer.json; save the processor"),
    "cut tokenizer": (lambda f: truncate(f / "tokenizer.json"), "its processor does not load"),
    "no pipeline": (lambda f: (f / "pipeline_vlkd.py").unlink(), "lacks pipeline_vlkd.py, which"),
    "no sibling": (lambda f: (f / "generation_vlkd.py").unlink(), "lacks generation_vlkd.py, which hub_files_vlkd.py"),
    "broken code": (lambda f: (f / "modeling_vlkd.py").write_text("def ("), "modeling_vlkd.py is not valid python"),
    "no card": (lambda f: (f / "README.md").unlink(), "There is no model card"),
}


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[:-50])


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_in_one_line(name: str, folder: Path):
    damage, message = DAMAGES[name]
    damage(folder)
    with pytest.raises(PublishError) as caught:
        find_shareable(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_configuration_without_code_is_refused(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    del config["custom_pipelines"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(PublishError, match="names no code"):
        find_shareable(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda index, shard: shard.unlink(), "lacks model-00001-of-"),
        (lambda index, shard: truncate(shard), "truncated or damaged"),
        (lambda index, shard: index.write_text("{}"), "has no weight_map"),
        (lambda index, shard: edit_json(index, weight_map={"lm_head": shard.name}), "lacks lm_head, which"),
    ],
)
def test_damaged_shards_are_named(damage, message: str, folder: Path):
    model = VLKDForConditionalGeneration.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    damage(folder / "model.safetensors.index.json", min(folder.glob("model-00001-*")))
    with pytest.raises(PublishError, match=message):
        find_shareable(folder)


def test_what_is_no_folder_is_refused(tmp_path: Path):
    with pytest.raises(PublishError, match="is not a folder"):
        find_shareable(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adapter_config.json", "holds an adapter of peft, no model; merge it first, `model.merge_and_unload()"),
        ("metadata.csv", "is no checkpoint: it holds neither config.json nor weights"),
    ],
)
def test_what_is_no_model_is_not_said_to_lack_a_file(name: str, message: str, tmp_path: Path):
    (tmp_path / name).write_text("{}")
    with pytest.raises(PublishError) as caught:
        find_shareable(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path} {message}")
