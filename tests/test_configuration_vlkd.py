import importlib
import importlib.metadata
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import VISION_CONFIGS
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoConfig, BartConfig, CLIPVisionConfig

import modeling_vlkd
from modeling_vlkd import CLIPResNetVisionConfig, VLKDConfig


def test_defaults_are_a_clip_and_a_bart():
    config = VLKDConfig()
    assert isinstance(config.vision_config, CLIPVisionConfig)
    assert isinstance(config.text_config, BartConfig)
    assert config.projection_dim == config.vision_config.projection_dim == 512
    assert config.freeze_vision_tower
    assert config.bridge_text_only
    assert config.logit_scale_init_value == pytest.approx(math.log(1 / 0.07))


@pytest.mark.parametrize("tower", VISION_CONFIGS)
def test_projection_dim_is_the_towers(make_config, tower: str):
    assert make_config(tower).projection_dim == 12
    assert make_config(tower, projection_dim=12).projection_dim == 12
    with pytest.raises(
        StrictDataclassClassValidationError, match="projection_dim=13, but the vision tower gives 12 dimensions"
    ):
        make_config(tower, projection_dim=13)


@pytest.mark.parametrize("tower", VISION_CONFIGS)
def test_saving_and_loading_changes_nothing(make_config, tower: str, tmp_path):
    config = make_config(tower, text_pooling="mean", freeze_vision_tower=False, bridge_text_only=False, num_labels=5)
    config.save_pretrained(tmp_path)
    for loaded in (VLKDConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is VLKDConfig
        assert loaded.to_dict() == config.to_dict() | {"_name_or_path": loaded.to_dict()["_name_or_path"]}
    assert type(loaded.vision_config) is type(config.vision_config)


def test_resnet_is_built_from_its_dictionary(make_config):
    assert isinstance(make_config("resnet").vision_config, CLIPResNetVisionConfig)


def test_sub_configs_may_be_objects():
    text_config, vision_config = BartConfig(d_model=32), CLIPVisionConfig(projection_dim=8)
    config = VLKDConfig(text_config=text_config, vision_config=vision_config)
    assert config.text_config.d_model == 32
    assert config.projection_dim == 8


def test_hub_entries_are_saved_but_not_loaded(make_config, tmp_path):
    """With `custom_pipelines` in a loaded configuration, `pipeline()` would ask for trust in an installed package."""
    make_config().save_pretrained(tmp_path)
    loaded = VLKDConfig.from_pretrained(tmp_path)
    assert "visual-question-answering" in loaded.to_dict()["custom_pipelines"]
    assert loaded.to_dict()["auto_map"]["AutoModel"] == "modeling_vlkd.VLKDModel"
    assert "custom_pipelines" not in vars(loaded)


def test_wrong_pooling_is_refused():
    with pytest.raises(
        StrictDataclassClassValidationError, match=r"text_pooling='cls': choose \"bos\", \"eos\" or \"mean\""
    ):
        VLKDConfig(text_pooling="cls")


@pytest.mark.parametrize(
    ("text_config", "reason"),
    [
        ({"model_type": "t5"}, "holds a model of type 't5'; give a BART"),
        # mBART-cc25's format: the decoder starts with the language
        ({"model_type": "mbart", "decoder_start_token_id": 250020}, "expects the language behind the text"),
        ({"model_type": "mbart"}, "expects the language behind the text; give a BART or mBART-50"),
    ],
)
def test_other_language_models_are_refused(text_config: dict, reason: str):
    with pytest.raises(StrictDataclassClassValidationError, match=reason):
        VLKDConfig(text_config=text_config)


@pytest.mark.parametrize("name", ["configuration_vlkd", "processing_vlkd"])  # the files that Auto classes load first
def test_a_transformers_that_is_too_old_is_named(name: str, monkeypatch):
    """It is named before an import fails: the code of a repository runs with any version of transformers."""
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "5.23.0")
    repository = ModuleType("repository")  # transformers imports the code of a repository under another name, too
    repository.__path__ = [str(Path(modeling_vlkd.__file__).parent)]
    monkeypatch.setitem(sys.modules, "repository", repository)
    with pytest.raises(ImportError, match=r"transformers>=5\.24 is required .* but found transformers==5\.23\.0"):
        importlib.import_module(f"repository.{name}")


def test_code_of_the_towers_is_not_named(make_config):
    config = make_config()
    config.text_config.auto_map = config.vision_config.auto_map = {"AutoConfig": "nowhere.Config"}
    assert "nowhere" not in config.to_json_string()
    assert config.to_dict()["auto_map"]["AutoConfig"] == "configuration_vlkd.VLKDConfig"
