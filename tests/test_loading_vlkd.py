"""Only what a model lacks is reported, not the other half of the checkpoint that it comes from."""

import pytest
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModelWithProjection
from transformers.utils import logging

from modeling_vlkd.loading_vlkd import load_whole


def test_the_other_tower_is_no_news(clip_folder, caplog):
    caplog.set_level(logging.WARNING, logger="transformers")  # commands that ran before may have silenced it
    CLIPVisionModelWithProjection.from_pretrained(clip_folder)
    assert "UNEXPECTED" in caplog.text  # otherwise there would be nothing to silence
    caplog.clear()
    load_whole(CLIPVisionModelWithProjection, clip_folder)
    assert caplog.text == ""
    assert logging.get_verbosity() == logging.WARNING


def test_missing_weights_are_an_error(clip_folder, tmp_path):
    tensors = load_file(clip_folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((clip_folder / "config.json").read_text())
    with pytest.raises(ValueError, match=r"lacks 1 of .* tensors, such as visual_projection\.weight"):
        load_whole(CLIPVisionModelWithProjection, tmp_path)
