import json
import shutil
import socket
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_peers import PEERS, make_peer
from transformers import Blip2Model

from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor
from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.models import load_model
from modeling_vlkd.evaluation.peers import adapt
from modeling_vlkd.evaluation.vlkd_model import VLKDAdapter


QUESTIONS = ["is there a circle?", "what color is the shape?"]
# A chat model whose code comes with it, and leaves a trace where it runs.
CODE = """
import pathlib
from transformers import LlavaConfig, LlavaForConditionalGeneration

pathlib.Path({trace!r}).touch()


class MineConfig(LlavaConfig):
    model_type = "mine"


class MineForConditionalGeneration(LlavaForConditionalGeneration):
    config_class = MineConfig
"""


def save(name: str, folder: Path) -> Path:
    model, processor = make_peer(name)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (20, 30, 3), dtype=np.uint8)) for _ in QUESTIONS]


@pytest.fixture(scope="module")
def blip_folder(tmp_path_factory) -> Path:
    return save("blip-vqa", tmp_path_factory.mktemp("blip"))


@pytest.fixture
def sought(monkeypatch) -> list[tuple]:
    """What was looked for on the network, where there is none."""
    found: list[tuple] = []

    def refuse(*args, **kwargs):
        found.append(args)
        raise AssertionError("there is no network")  # huggingface_hub would try again after an OSError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return found


@pytest.fixture
def no_network(sought) -> Iterator[None]:
    yield
    assert not sought


def said(adapter, pictures: list[Image.Image]) -> list[object]:
    """What a model says and embeds; of what it cannot do, what it says of that."""
    found: list[object] = []
    for ask in (
        lambda: adapter.answer(pictures, QUESTIONS),
        lambda: adapter.caption(pictures),
        lambda: adapter.embed_images(pictures).tolist(),
        lambda: adapter.embed_texts(QUESTIONS).tolist(),
    ):
        try:
            found.append(ask())
        except EvaluationError as error:
            found.append(str(error))
    return found


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", PEERS)
def test_a_saved_peer_says_what_it_said_before(name, pictures, tmp_path):
    folder = str(save(name, tmp_path))
    settings = {} if name in ("clip", "siglip", "blip-itm") else {"max_new_tokens": 4}
    loaded = load_model(folder, "cpu", batch_size=2, **settings)
    assert said(loaded, pictures) == said(adapt(*make_peer(name), name=folder, **settings), pictures)
    assert loaded.batch_size == 2


@pytest.mark.usefixtures("no_network")
def test_a_vlkd_says_what_it_said_before(tiny_checkpoint, pictures):
    model = VLKDForConditionalGeneration.from_pretrained(tiny_checkpoint)
    adapter = VLKDAdapter(model, VLKDProcessor.from_pretrained(tiny_checkpoint), num_masks=3, num_beams=2)
    loaded = load_model(str(tiny_checkpoint), "cpu", num_masks=3, num_beams=2)
    assert said(loaded, pictures) == said(adapter, pictures)
    assert said(load_model(str(tiny_checkpoint), "cpu"), pictures) != said(adapter, pictures)


def test_settings_device_and_dtype_are_taken(blip_folder, pictures):
    loaded = load_model(str(blip_folder), torch.device("cpu"), torch.bfloat16, question_prompt="so, {question}")
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.question_prompt == "so, {question}"
    assert len(loaded.answer(pictures, QUESTIONS)) == 2


def edit_config(folder: Path, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def as_bin(folder: Path):
    model, _ = make_peer("blip-vqa")
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def cut(folder: Path):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def lose_tensors(folder: Path):
    model, _ = make_peer("blip-vqa")
    state = {name: tensor for name, tensor in model.state_dict().items() if "vision_model" not in name}
    model.save_pretrained(folder, state_dict=state)


def lose(*names: str):
    return lambda folder: [(folder / name).unlink() for name in names]


BROKEN = {
    "a text model": (
        lambda folder: edit_config(folder, model_type="bart"),
        r"of type 'bart', which cannot be evaluated; those that can are 'vlkd', 'blip', 'blip-2', .* and chat models",
    ),
    "no type": (lambda folder: edit_config(folder, model_type=None), "of type None, which cannot be evaluated"),
    "no table": (lambda folder: (folder / "config.json").write_text("[]"), r"of type \[\], which cannot be evaluated"),
    "another class": (
        lambda folder: edit_config(folder, architectures=["BlipModel"]),
        "holds a BlipModel, which cannot be evaluated; of type 'blip', those that can are BlipForCond.*, BlipForQuest",
    ),
    "no configuration": (lose("config.json"), "holds no checkpoint: there is no config.json in it"),
    "weights cut": (cut, "The weights of .* are truncated or damaged"),
    "weights that can run code": (as_bin, "The weights of .* cannot be loaded .*; they have to be in safetensors"),
    "some tensors": (lose_tensors, r"lacks \d+ of the model's tensors, such as vision_model"),
    "no processor": (
        lose("processor_config.json", "tokenizer.json", "tokenizer_config.json"),
        "The processor of .* cannot be loaded",
    ),
    "only a tokenizer": (lose("processor_config.json"), r"The processor of .* cannot be loaded"),
}


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(("spoil", "message"), BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_loaded_is_said_in_one_line(spoil, message, blip_folder, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(blip_folder, folder)
    spoil(folder)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(str(folder), "cpu")
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_network")
def test_what_is_not_there_is_said(blip_folder, tmp_path):
    with pytest.raises(EvaluationError, match="nowhere; name that of a checkpoint, or a Hub id"):
        load_model(str(tmp_path / "nowhere"))
    with pytest.raises(EvaluationError, match=r"config\.json is a file; name the folder"):
        load_model(str(blip_folder / "config.json"))
    with pytest.raises(EvaluationError, match="device cudda cannot be used"):
        load_model(str(blip_folder), "cudda")


def test_a_name_that_is_no_folder_is_looked_for_on_the_hub(sought):
    with pytest.raises(EvaluationError, match="There is no folder 'a/b', and on the Hub: Can't load"):
        load_model("a/b")
    assert sought


def test_code_of_a_checkpoint_runs_only_with_consent(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "cache"))
    folder, trace = tmp_path / "mine", tmp_path / "trace"
    folder.mkdir()
    (folder / "mine.py").write_text(CODE.format(trace=str(trace)))
    spec = spec_from_file_location("mine", folder / "mine.py")
    mine = module_from_spec(spec)
    spec.loader.exec_module(mine)
    llava, processor = make_peer("llava")
    model = mine.MineForConditionalGeneration(mine.MineConfig(**{**llava.config.to_dict(), "model_type": "mine"}))
    model.load_state_dict(llava.state_dict())
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    classes = {"AutoConfig": "mine.MineConfig", "AutoModelForImageTextToText": "mine.MineForConditionalGeneration"}
    edit_config(folder, auto_map=classes)
    trace.unlink()
    with pytest.raises(EvaluationError, match="of type 'mine', whose code comes with it; if you trust that"):
        load_model(str(folder), "cpu")
    assert not trace.exists()
    loaded = load_model(str(folder), "cpu", trust_remote_code=True)
    assert trace.exists()
    assert type(loaded.model).__name__ == "MineForConditionalGeneration"
    assert loaded.answer(pictures, QUESTIONS) == adapt(*make_peer("llava")).answer(pictures, QUESTIONS)


def test_a_model_in_memory_is_told_by_its_class():
    model, processor = make_peer("blip-2-opt")
    with pytest.raises(EvaluationError, match="The model holds a Blip2Model, which cannot be evaluated"):
        adapt(Blip2Model(model.config), processor)
