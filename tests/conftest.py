"""Tiny models with random weights and what belongs to them, made once for all tests. Tests that change a model make
their own with `make_model`.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from random_weights import random_pictures, randomize
from tiny_training import tiny_tokenizer
from torch import Tensor
from transformers import (
    BartForConditionalGeneration,
    BartTokenizer,
    CLIPConfig,
    CLIPModel,
    PreTrainedModel,
)

from modeling_vlkd import VLKDConfig, VLKDForConditionalGeneration, VLKDImageProcessor, VLKDProcessor
from modeling_vlkd.known_prefix_vlkd import default_generation_config


torch.set_num_threads(1)  # on tensors this small, threads cost more than they give

IMAGE_SIZE, DIM, WIDTH = 64, 12, 16
VISION_CONFIGS = {
    "vit": {  # one image row
        **{"model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "image_size": IMAGE_SIZE, "patch_size": 32, "projection_dim": DIM},
    },
    "resnet": {  # five image rows
        **{"model_type": "clip_resnet_vision_model", "layers": (1, 2, 1, 1), "width": 4, "num_attention_heads": 4},
        **{"image_size": IMAGE_SIZE, "projection_dim": DIM},
    },
    "siglip": {  # one image row, no projection
        **{"model_type": "siglip_vision_model", "hidden_size": DIM, "intermediate_size": 24, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "image_size": IMAGE_SIZE, "patch_size": 32},
    },
}
TEXT_CONFIG = {
    **{"model_type": "bart", "d_model": WIDTH, "max_position_embeddings": 64},
    **{"encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24},
    **{"decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 24},
}
TEXTS = ["what color is the shape?", "is there a circle in the image? Answer:<mask><mask>.", "a box."]


class DeprecationLog(logging.Handler):
    """Hears what transformers logs about deprecated arguments: a failure, as `filterwarnings` makes of its warnings.

    With `--deprecations summary`, for versions that the code was not written with, all are listed at the end instead.
    """

    fatal = True
    heard: set[str] = set()

    def emit(self, record: logging.LogRecord):
        if "deprecated" not in record.getMessage():
            return
        if self.fatal:
            raise AssertionError(f"transformers warns of a deprecation: {record.getMessage()}")
        self.heard.add(record.getMessage())


DEPRECATION_LOG = DeprecationLog()
logging.getLogger("transformers").addHandler(DEPRECATION_LOG)


def pytest_addoption(parser: pytest.Parser):
    parser.addoption("--deprecations", choices=["error", "summary"], default="error", help="what becomes of them")


def pytest_configure(config: pytest.Config):
    if config.getoption("--deprecations") == "summary":
        DEPRECATION_LOG.fatal = False
        for category in ("DeprecationWarning", "FutureWarning"):  # the last filter wins over those of pyproject.toml
            config.addinivalue_line("filterwarnings", f"default::{category}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter):
    for message in sorted(DEPRECATION_LOG.heard):
        terminalreporter.write_line(f"deprecated: {message}")


@pytest.fixture
def deprecations_allowed() -> Iterator[None]:
    logging.getLogger("transformers").removeHandler(DEPRECATION_LOG)
    yield
    logging.getLogger("transformers").addHandler(DEPRECATION_LOG)


@pytest.fixture(scope="session")
def tokenizer() -> BartTokenizer:
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def image_processor() -> VLKDImageProcessor:
    return VLKDImageProcessor(size={"shortest_edge": IMAGE_SIZE}, crop_size=IMAGE_SIZE)


@pytest.fixture(scope="session")
def processor(image_processor, tokenizer) -> VLKDProcessor:
    return VLKDProcessor(image_processor, tokenizer, num_caption_masks=3, num_question_masks=2)


@pytest.fixture(scope="session")
def make_config(tokenizer) -> Callable[..., VLKDConfig]:
    """Makes a configuration with the tower `"vit"`, `"resnet"` or `"siglip"`; `text` overrides fields of the BART."""

    def make(tower: str = "vit", text: dict | None = None, **kwargs) -> VLKDConfig:
        text_config = {**TEXT_CONFIG, "vocab_size": len(tokenizer), **(text or {})}
        return VLKDConfig(vision_config=dict(VISION_CONFIGS[tower]), text_config=text_config, **kwargs)

    return make


@pytest.fixture(scope="session")
def make_model(make_config) -> Callable[..., PreTrainedModel]:
    """Makes a model of its own for one test, every weight random, in eval mode; arguments as for `make_config`.

    With seed 1, models write different texts for different inputs.
    """

    def make(tower: str = "vit", model_class=VLKDForConditionalGeneration, seed: int = 1, **kwargs) -> PreTrainedModel:
        return randomize(model_class(make_config(tower, **kwargs)), seed)

    return make


@pytest.fixture(scope="session", params=["vit", "resnet"])
def model(request, make_model) -> VLKDForConditionalGeneration:
    """A model shared by all tests, once with each kind of vision tower; not to be changed."""
    return make_model(request.param)


@pytest.fixture(scope="session")
def pixel_values() -> Tensor:
    """Three pictures, `(3, 3, 64, 64)`."""
    return random_pictures(3, IMAGE_SIZE)


@pytest.fixture
def inputs(tokenizer, pixel_values) -> dict[str, Tensor]:
    """Three pictures and three texts of different lengths, the shorter ones padded."""
    encoded = tokenizer(TEXTS, padding=True, return_tensors="pt")
    return {**encoded, "pixel_values": pixel_values}


@pytest.fixture(scope="session")
def tiny_checkpoint(make_model, processor, tmp_path_factory) -> Path:
    """A folder with a whole checkpoint, model (ViT tower) and processor, as `save_pretrained` leaves it."""
    folder = tmp_path_factory.mktemp("tiny_checkpoint")
    model = make_model("vit")
    model.generation_config = default_generation_config(model.config.text_config, processor.tokenizer.mask_token_id)
    model.generation_config.max_new_tokens = 8
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip_folder(image_processor, tmp_path_factory) -> Path:
    """A folder with a CLIP of transformers, both towers, and its image processor."""
    folder = tmp_path_factory.mktemp("clip")
    text = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 12, "eos_token_id": 49}
    config = CLIPConfig(vision_config=VISION_CONFIGS["vit"], text_config=text, projection_dim=DIM)
    randomize(CLIPModel(config)).save_pretrained(folder)
    image_processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bart_folder(make_config, tokenizer, tmp_path_factory) -> Path:
    """A folder with a BART of transformers and its tokenizer."""
    folder = tmp_path_factory.mktemp("bart")
    randomize(BartForConditionalGeneration(make_config().text_config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
