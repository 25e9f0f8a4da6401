"""Only what a model lacks is reported, not the other half of the checkpoint that it comes from."""

from transformers import CLIPVisionModelWithProjection
from transformers.utils import logging

from modeling_vlkd.towers_vlkd import load_whole


def test_the_other_tower_is_no_news(clip_folder, caplog):
    caplog.set_level(logging.WARNING, logger="transformers")  # commands that ran before may have silenced it
    CLIPVisionModelWithProjection.from_pretrained(clip_folder)
    assert "UNEXPECTED" in caplog.text  # otherwise there would be nothing to silence
    caplog.clear()
    load_whole(CLIPVisionModelWithProjection, clip_folder)
    assert caplog.text == ""
    assert logging.get_verbosity() == logging.WARNING
