import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_sources import save_transformers_clip
from transformers import CLIPModel

from modeling_vlkd.conversion.errors import ConversionError
from modeling_vlkd.conversion.strict_loading import check_folder, check_sizes, load_strictly, weight_files


def save_bins(folder: Path, old_format: bool, parts: int):
    """Save a CLIP with its weights in one pickle, or in several with an index."""
    save_transformers_clip("clip", folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = [f"pytorch_model-{part + 1:05d}-of-{parts:05d}.bin" for part in range(parts)]
    names = names if parts > 1 else ["pytorch_model.bin"]
    places = {key: names[number % parts] for number, key in enumerate(tensors)}
    for name in names:
        part = {key: tensor for key, tensor in tensors.items() if places[key] == name}
        torch.save(part, folder / name, _use_new_zipfile_serialization=not old_format)
    if parts > 1:
        index = {"metadata": {}, "weight_map": places}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return tensors


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("parts", [1, 2])
def test_whole_pickles_pass_and_are_loaded(old_format: bool, parts: int, tmp_path: Path):
    tensors = save_bins(tmp_path, old_format, parts)
    check_folder(CLIPModel, tmp_path)
    state = load_strictly(CLIPModel, tmp_path).state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in tensors.items())


def test_only_files_that_are_read_are_checked(tmp_path: Path):
    """transformers prefers safetensors, so a damaged pickle beside them does no harm."""
    save_transformers_clip("clip", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    (tmp_path / "pytorch_model-00009-of-00009.bin").write_bytes(b"")
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]
    check_folder(CLIPModel, tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"d_model": 0}, "config.json: d_model is 0, expected a whole number of at least 1; take the one"),
        ({"vision_config": {"hidden_size": -3}}, "config.json: vision_config.hidden_size is -3, expected"),
        ({"vision_cfg": {"layers": [1, 2, 0, 1]}}, r"config.json: vision_cfg.layers is \[1, 2, 0, 1\], expected"),
        ({"encoder_layers": 1.5}, "config.json: encoder_layers is 1.5, expected"),
        ({"vocab_size": "many"}, "config.json: vocab_size is 'many', expected"),
    ],
)
def test_sizes_that_no_model_has_are_refused_by_name(config: dict, message: str):
    with pytest.raises(ConversionError, match=message):
        check_sizes(config, "config.json")


def test_other_fields_and_missing_sizes_are_not_checked():
    check_sizes({"dropout": 0, "patch_size": None, "layers": [3, 4, 6, 3], "task": {"min_length": 0}}, "config.json")
