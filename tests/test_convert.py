"""The command `vlkd convert`: what it prints, and the one line about each thing that can be wrong with its input."""

import errno
import io
import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from tiny_sources import (
    openai_model,
    save_bart,
    save_fairseq_bart,
    save_open_clip_folder,
    save_openai_archive,
    save_transformers_clip,
)
from transformers import BartForConditionalGeneration

from modeling_vlkd import VLKDForConditionalGeneration
from modeling_vlkd.commands.main import main
from modeling_vlkd.conversion import assembling, sources


class Intruder:
    """An object that writes a file when a careless reader unpickles it."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    """Save one source of each format."""
    folder = tmp_path_factory.mktemp("originals")
    save_openai_archive("vit", folder / "archive.pt")
    torch.save(openai_model("vit").state_dict(), folder / "zip.pt")
    torch.save(openai_model("vit").state_dict(), folder / "old.pt", _use_new_zipfile_serialization=False)
    save_file(openai_model("vit").state_dict(), folder / "clip.safetensors")
    save_open_clip_folder("vit", folder / "open-clip")
    save_transformers_clip("clip", folder / "clip")
    save_bart(folder / "bart")
    save_fairseq_bart(folder / "fairseq")
    return folder


def cut(name: str, share: float = 0.5) -> Callable[[Path], None]:
    """Keep only this share of a file. Like all functions here, it returns what changes the folder of the sources."""

    def change(folder: Path):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return change


def flip(name: str, part: bytes | float) -> Callable[[Path], None]:
    """Flip a bit of a file: at a share of its length, or after some bytes that it contains."""

    def change(folder: Path):
        content = bytearray((folder / name).read_bytes())
        place = int(len(content) * part) if isinstance(part, float) else content.index(part) + len(part)
        content[place] ^= 0x10
        (folder / name).write_bytes(content)

    return change


def write(name: str, content: bytes | str) -> Callable[[Path], None]:
    def change(folder: Path):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def remove(*names: str) -> Callable[[Path], None]:
    def change(folder: Path):
        for name in names:
            (folder / name).unlink()

    return change


def save(name: str, make: Callable[[Path], object], old: bool = False) -> Callable[[Path], None]:
    """Pickle what `make` returns; `make` gets the path of a file that must never be written."""
    return lambda folder: torch.save(make(folder / "intruded"), folder / name, _use_new_zipfile_serialization=not old)


def state_dict(**changes) -> Callable[[Path], None]:
    """Change tensors of OpenAI's state dict.

    Each argument is the name of a tensor, with __ for a dot. Its value is a function that returns the new tensor, or
    None to leave the tensor out.
    """

    def change(folder: Path):
        tensors = dict(openai_model("vit").state_dict())
        for name, new in changes.items():
            tensor = tensors.pop(key := name.replace("__", "."), None)
            if new is not None:
                tensors[key] = new(tensor)
        torch.save(tensors, folder / "zip.pt")

    return change


def keep(test: Callable[[str], bool]) -> Callable[[Path], None]:
    def change(folder: Path):
        torch.save({k: t for k, t in openai_model("vit").state_dict().items() if test(k)}, folder / "zip.pt")

    return change


def plant_in_archive(folder: Path):
    """Replace the module tree of the archive by a command to be executed."""
    with zipfile.ZipFile(folder / "archive.pt") as source, zipfile.ZipFile(folder / "new.pt", "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("/data.pkl"):
                content = pickle.dumps(Intruder(folder / "intruded"))
            target.writestr(name, content)
    (folder / "new.pt").replace(folder / "archive.pt")


def plant_in_folder(folder: Path):
    (folder / "clip/model.safetensors").unlink()
    torch.save({"visual_projection.weight": Intruder(folder / "intruded")}, folder / "clip/pytorch_model.bin")


def plant_code(folder: Path):
    """Put code beside a configuration that asks for it."""
    path = folder / "clip/preprocessor_config.json"
    (folder / "clip/intruder.py").write_text(f"open({str(folder / 'intruded')!r}, 'w')\nclass Intruder: ...\n")
    content = json.loads(path.read_text())
    content |= {"auto_map": {"AutoImageProcessor": "intruder.Intruder"}, "image_processor_type": "Intruder"}
    path.write_text(json.dumps(content))


def edit_json(name: str, **changes) -> Callable[[Path], None]:
    def change(folder: Path):
        content = json.loads((folder / name).read_text())
        for key, value in changes.items():
            *path, last = key.split("__")
            place = content
            for step in path:
                place = place[step]
            place[last] = value
            if value is None:
                del place[last]
        (folder / name).write_text(json.dumps(content))

    return change


def as_bins(name: str, damage: Callable[[Path], None], old: bool = False) -> Callable[[Path], None]:
    """Turn the weights of a folder into two pickles with an index, and damage them."""

    def change(folder: Path):
        tensors = load_file(folder / name / "model.safetensors")
        (folder / name / "model.safetensors").unlink()
        places = {key: f"pytorch_model-0000{number % 2 + 1}-of-00002.bin" for number, key in enumerate(tensors)}
        for place in set(places.values()):
            part = {key: tensor for key, tensor in tensors.items() if places[key] == place}
            torch.save(part, folder / name / place, _use_new_zipfile_serialization=not old)
        (folder / name / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
        damage(folder)

    return change


def as_bin(name: str, damage: Callable[[Path], None], old: bool = False) -> Callable[[Path], None]:
    """Turn the weights of a folder into a pickle, and damage it."""

    def change(folder: Path):
        tensors = load_file(folder / name / "model.safetensors")
        (folder / name / "model.safetensors").unlink()
        torch.save(tensors, folder / name / "pytorch_model.bin", _use_new_zipfile_serialization=not old)
        damage(folder)

    return change


def without_mask(folder: Path):
    """Remove the last entry of the vocabulary of fairseq's BART, which is the mask; bart.large.cnn lacks it, too."""
    content = torch.load(folder / "fairseq/model.pt", weights_only=False)
    for side in ("encoder", "decoder"):
        content["model"][f"{side}.embed_tokens.weight"] = content["model"][f"{side}.embed_tokens.weight"][:-1]
    torch.save(content, folder / "fairseq/model.pt")


def drop_fairseq(key: str) -> Callable[[Path], None]:
    def change(folder: Path):
        content = torch.load(folder / "fairseq/model.pt", weights_only=False)
        del content["model"][key]
        torch.save(content, folder / "fairseq/model.pt")

    return change


def without_mask_in_transformers(folder: Path):
    model = BartForConditionalGeneration.from_pretrained(folder / "bart")
    model.resize_token_embeddings(model.config.vocab_size - 1)
    model.save_pretrained(folder / "bart")


def as_processor(folder: Path):
    """Move the preprocessing into the file of a whole processor, as transformers writes it, and damage it."""
    settings = json.loads((folder / "clip/preprocessor_config.json").read_text())
    (folder / "clip/preprocessor_config.json").unlink()
    whole = {"processor_class": "CLIPProcessor", "image_processor": {**settings, "image_mean": [0.5, 0.5]}}
    (folder / "clip/processor_config.json").write_text(json.dumps(whole))


def without_mask_token(folder: Path):
    path = folder / "bart/tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "mask_token": None}))


def without_merges(folder: Path):
    """Save the tokenizer in the old format, with one file for the vocabulary and an empty one for the merges."""
    vocabulary = json.loads((folder / "bart/tokenizer.json").read_text())["model"]["vocab"]
    (folder / "bart/tokenizer.json").unlink()
    (folder / "bart/vocab.json").write_text(json.dumps(vocabulary))
    (folder / "bart/merges.txt").write_text("")


def edit_fairseq(**arguments) -> Callable[[Path], None]:
    def change(folder: Path):
        content = torch.load(folder / "fairseq/model.pt", weights_only=False)
        vars(content["args"]).update(arguments)
        torch.save(content, folder / "fairseq/model.pt")

    return change


def edit_dictionary(change_lines: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def change(folder: Path):
        lines = (folder / "fairseq/dict.txt").read_text().splitlines()
        (folder / "fairseq/dict.txt").write_text("\n".join(change_lines(lines)) + "\n")

    return change


def spoil_fairseq(folder: Path):
    torch.save({"model": Intruder(folder / "intruded")}, folder / "fairseq/model.pt")


def numpy_archive(folder: Path):
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.zeros(3))
    (folder / "weights.npz").write_bytes(buffer.getvalue())


def shrink_bart(folder: Path):
    model = BartForConditionalGeneration.from_pretrained(folder / "bart")
    model.resize_token_embeddings(260)
    model.save_pretrained(folder / "bart")


def nothing(folder: Path):
    pass


CASES = {  # name: (vision, text, the change of the sources, what the line says)
    # files that are no checkpoint, or a damaged one
    "no such file": ("missing.pt", "bart", nothing, "missing.pt is neither a folder nor a Hub id"),
    "empty file": ("zip.pt", "bart", write("zip.pt", b""), "neither safetensors nor a PyTorch checkpoint"),
    "text": ("zip.pt", "bart", write("zip.pt", "<html>404</html>"), "neither safetensors nor a PyTorch checkpoint"),
    "archive cut": ("archive.pt", "bart", cut("archive.pt"), "truncated or damaged"),
    "archive, bit of a tensor": ("archive.pt", "bart", flip("archive.pt", 0.5), "truncated or damaged .*CRC"),
    "archive, bit of the tree": (
        "archive.pt",
        "bart",
        flip("archive.pt", b"_rebuild_tensor"),
        "damaged|which is not data",
    ),
    "zip cut": ("zip.pt", "bart", cut("zip.pt"), "truncated or damaged"),
    "zip, bit of a tensor": ("zip.pt", "bart", flip("zip.pt", 0.5), "truncated or damaged .*checksum"),
    "old pickle cut": ("old.pt", "bart", cut("old.pt"), "damaged"),
    "safetensors cut": ("clip.safetensors", "bart", cut("clip.safetensors"), "truncated or damaged"),
    "safetensors, bit of the header": ("clip.safetensors", "bart", flip("clip.safetensors", b'dtype":"'), "damaged"),
    "numpy archive": ("weights.npz", "bart", numpy_archive, "not a checkpoint|damaged"),
    # pickles that ask for something to be executed
    "zip, forbidden": ("zip.pt", "bart", save("zip.pt", Intruder), "asks for posix.system, which is not data"),
    "old, forbidden": (
        "old.pt",
        "bart",
        save("old.pt", Intruder, old=True),
        "asks for posix.system, which is not data",
    ),
    "archive, forbidden": ("archive.pt", "bart", plant_in_archive, "asks for posix.system, which is not data"),
    "hidden deep": (
        "zip.pt",
        "bart",
        save("zip.pt", lambda p: {"state_dict": {"a": [Intruder(p)]}}),
        "asks for posix.sys",
    ),
    "whole module": ("zip.pt", "bart", save("zip.pt", lambda _: torch.nn.Linear(2, 2)), "asks for torch.nn.*Linear"),
    "fairseq, forbidden": ("clip", "fairseq", spoil_fairseq, "asks for posix.system, which is not data"),
    # checkpoints of something else
    "training run": (
        *("zip.pt", "bart", save("zip.pt", lambda _: {"epoch": 3, "state_dict": {}})),
        "give open_clip's name of it, as in ViT-B-16:",
    ),
    "list": ("zip.pt", "bart", save("zip.pt", lambda _: [torch.zeros(2)]), "holds no state dict but list"),
    "no tensors": ("zip.pt", "bart", save("zip.pt", lambda _: {}), "holds no state dict"),
    "not a tensor": ("zip.pt", "bart", save("zip.pt", lambda _: {"visual.proj": "big"}), "'visual.proj' holds str"),
    "text-only CLIP": ("zip.pt", "bart", keep(lambda k: not k.startswith("visual.")), "holds no vision tower"),
    "vision-only CLIP": ("zip.pt", "bart", keep(lambda k: k.startswith("visual.")), "'text_projection' is missing"),
    "missing": ("zip.pt", "bart", state_dict(visual__ln_post__bias=None), "missing 'visual.ln_post.bias'"),
    "unknown": ("zip.pt", "bart", state_dict(visual__new=lambda _: torch.zeros(1)), "unknown 'visual.new'"),
    "unknown text": ("zip.pt", "bart", state_dict(new=lambda _: torch.zeros(1)), "unknown 'new'"),
    "misshapen": (
        *("zip.pt", "bart", state_dict(visual__ln_pre__bias=lambda t: t[:3])),
        r"'visual.ln_pre.bias' has shape \(3,\), but the architecture wants \(128,\)",
    ),
    "whole numbers": (
        *("zip.pt", "bart", state_dict(visual__proj=lambda t: t.int())),
        "'visual.proj' is a torch.strided tensor of torch.int32, but the architecture wants torch.float32; give",
    ),
    "a number for a matrix": (
        *("zip.pt", "bart", state_dict(text_projection=lambda t: t.sum())),
        r"zip.pt: the checkpoint is no CLIP as OpenAI published them: 'text_projection' has shape \(\); take",
    ),
    "two sizes of the joint space": (
        *("zip.pt", "bart", state_dict(text_projection=lambda t: t[:, :9])),
        r"'visual.proj' has shape \(128, 20\), but the architecture wants \(128, 9\)",
    ),
    "not finite": (
        "zip.pt",
        "bart",
        state_dict(visual__proj=lambda t: t / 0),
        "'visual.proj' holds values that are not",
    ),
    "grid not square": (
        *("zip.pt", "bart", state_dict(visual__positional_embedding=lambda t: t[:8])),
        "the checkpoint has 8 rows in 'visual.positional_embedding', which is no square plus one",
    ),
    # folders
    "empty folder": ("empty", "bart", lambda f: (f / "empty").mkdir(), "holds neither config.json nor open_clip"),
    "config.json is no JSON": ("clip", "bart", write("clip/config.json", "{oops"), "config.json: no JSON"),
    "config.json is a list": ("clip", "bart", write("clip/config.json", "[]"), "expected a JSON object, got list"),
    "no model type": ("clip", "bart", edit_json("clip/config.json", model_type=None), "is a 'None', not a CLIP"),
    "another model": ("bart", "bart", nothing, "is a 'bart', not a CLIP"),
    "text tower": (
        "clip",
        "bart",
        edit_json("clip/config.json", model_type="clip_text_model"),
        "text tower of a CLIP",
    ),
    "NaFlex": ("clip", "bart", edit_json("clip/config.json", model_type="siglip2"), "NaFlex"),
    "bad configuration": (
        *("clip", "bart", edit_json("clip/config.json", vision_config__hidden_size="x")),
        "clip/config.json: vision_config.hidden_size is 'x', expected a whole number of at least 1; take the one",
    ),
    **{
        f"{name} of {size}": (
            *("clip", "bart", edit_json("clip/config.json", **{f"vision_config__{name}": size})),
            f"clip/config.json: vision_config.{name} is {size}, expected a whole number of at least 1; take the one",
        )
        for name, size in (("hidden_size", 0), ("patch_size", 0), ("num_attention_heads", 0), ("image_size", -32))
    },
    "heads that do not divide": (
        *("clip", "bart", edit_json("clip/config.json", vision_config__num_attention_heads=7)),
        r"clip/config.json: .*hidden size \(32\) is not a multiple of the number of attention heads \(7\); take",
    ),
    "no such activation": (
        *("clip", "bart", edit_json("clip/config.json", vision_config__hidden_act="nonsense")),
        "clip/config.json: there is no 'nonsense'; take the one that came with the weights",
    ),
    "far too large": (
        *("clip", "bart", edit_json("clip/config.json", text_config__vocab_size=10**10)),
        "clip/config.json: describes a model of 320,0.* values, too many for .* bytes of weights; take",
    ),
    "folder without weights": (
        *("clip", "bart", remove("clip/model.safetensors")),
        "clip has no weights; expected model.safetensors or pytorch_model.bin",
    ),
    "folder, weights cut": ("clip", "bart", cut("clip/model.safetensors"), "model.safetensors: truncated or damaged"),
    "folder, weights empty": (
        *("clip", "bart", write("clip/model.safetensors", b"")),
        "clip/model.safetensors: truncated or damaged .*header too small.*; download it again",
    ),
    "bin empty": (
        *("clip", "bart", as_bin("clip", write("clip/pytorch_model.bin", b""))),
        "clip/pytorch_model.bin: neither safetensors nor a PyTorch checkpoint; it is empty. Download it again",
    ),
    "bin of garbage": (
        *("clip", "bart", as_bin("clip", write("clip/pytorch_model.bin", b"\x80\x02}q\x00X\x93"))),
        "clip/pytorch_model.bin: .*damaged.*; download it again",
    ),
    "bin of numbers": (
        *("clip", "bart", as_bin("clip", save("clip/pytorch_model.bin", lambda _: {1: 2}))),
        "clip/pytorch_model.bin: 1 holds int where a tensor was expected; give the file",
    ),
    "bin cut": ("clip", "bart", as_bin("clip", cut("clip/pytorch_model.bin")), "model.bin: truncated .*; download it"),
    "old bin cut": (
        *("clip", "bart", as_bin("clip", cut("clip/pytorch_model.bin", 0.01), old=True)),
        "clip/pytorch_model.bin: .*damaged.*; download it again",
    ),
    "bin, bit of a tensor": (
        *("clip", "bart", as_bin("clip", flip("clip/pytorch_model.bin", 0.5))),
        "clip/pytorch_model.bin: truncated or damaged .bad checksum of .*; download it again",
    ),
    "bins, bit of a tensor": (
        *("clip", "bart", as_bins("clip", flip("clip/pytorch_model-00002-of-00002.bin", 0.5))),
        "clip/pytorch_model-00002-of-00002.bin: truncated or damaged .bad checksum of .*; download it again",
    ),
    "bins, one missing": (
        *("clip", "bart", as_bins("clip", remove("clip/pytorch_model-00001-of-00002.bin"))),
        "clip lacks pytorch_model-00001-of-00002.bin, which pytorch_model.bin.index.json names; download it again",
    ),
    "bins, index of nothing": (
        *("clip", "bart", as_bins("clip", write("clip/pytorch_model.bin.index.json", "{}"))),
        "pytorch_model.bin.index.json: lacks 'metadata' or a whole 'weight_map'; take",
    ),
    "folder, another size": (
        *("clip", "bart", edit_json("clip/config.json", vision_config__hidden_size=64)),
        "has shape .* but config.json wants",
    ),
    "folder, forbidden": ("clip", "bart", plant_in_folder, "asks for posix.system, which is not data"),
    "folder with code": ("clip", "bart", plant_code, "no usable preprocessor_config.json"),
    "no preprocessing": (
        "clip",
        "bart",
        remove("clip/preprocessor_config.json"),
        "no usable preprocessor_config.json",
    ),
    "preprocessing is a list": (
        *("clip", "bart", write("clip/preprocessor_config.json", "[]")),
        "clip/preprocessor_config.json: expected a JSON object, got list; take the one that came with the weights",
    ),
    "mean of two, in a whole processor": (
        *("clip", "bart", as_processor),
        "clip/processor_config.json: .*; take the preprocessing that came with the weights",
    ),
    "mean of two": (
        *("clip", "bart", edit_json("clip/preprocessor_config.json", image_mean=[0.5, 0.5])),
        "clip/preprocessor_config.json: .*; take the preprocessing that came with the weights",
    ),
    "no deviation": (
        *("clip", "bart", edit_json("clip/preprocessor_config.json", image_std=[0, 0, 0])),
        "clip/preprocessor_config.json: makes values that are not finite out of a picture; take the preprocessing",
    ),
    "pictures of another size": (
        *("clip", "bart", edit_json("clip/preprocessor_config.json", crop_size={"height": 24, "width": 24})),
        "clip/preprocessor_config.json: makes pictures of 24 x 24, but the tower sees 32 x 32; take",
    ),
    "open_clip, mean of two": (
        *("open-clip", "bart", edit_json("open-clip/open_clip_config.json", preprocess_cfg__mean=[0.5, 0.5])),
        "open-clip/open_clip_config.json: mean must have 3 elements.*; take the preprocessing",
    ),
    "open_clip, mean is a number": (
        *("open-clip", "bart", edit_json("open-clip/open_clip_config.json", preprocess_cfg__mean=0)),
        "open-clip/open_clip_config.json: 'int' object is not iterable; take",
    ),
    "open_clip, a tower is a number": (
        *("open-clip", "bart", edit_json("open-clip/open_clip_config.json", model_cfg__vision_cfg=7)),
        "open-clip/open_clip_config.json: vision_cfg is 7, expected a JSON object; take",
    ),
    "open_clip, heads of nothing": (
        *("open-clip", "bart", edit_json("open-clip/open_clip_config.json", model_cfg__vision_cfg__head_width=0)),
        "open_clip_config.json: model_cfg.vision_cfg.head_width is 0, expected a whole number of at least 1; take",
    ),
    "open_clip without weights": (
        "open-clip",
        "bart",
        remove("open-clip/open_clip_model.safetensors"),
        "has no weights",
    ),
    "open_clip without a model": (
        "open-clip",
        "bart",
        write("open-clip/open_clip_config.json", "{}"),
        "no 'model_cfg'",
    ),
    "open_clip, half a model": (
        *("open-clip", "bart", edit_json("open-clip/open_clip_config.json", model_cfg__embed_dim=None)),
        "model configuration lacks embed_dim",
    ),
    "open_clip, another size": (
        *("open-clip", "bart", edit_json("open-clip/open_clip_config.json", model_cfg__embed_dim=99)),
        r"'visual.proj' has shape \(128, 20\)",
    ),
    "timm": (
        *(
            "open-clip",
            "bart",
            edit_json("open-clip/open_clip_config.json", model_cfg__vision_cfg__timm_model_name="x"),
        ),
        "timm_model_name='x' are not supported",
    ),
    "longest side": (
        *("open-clip", "bart", edit_json("open-clip/open_clip_config.json", preprocess_cfg__resize_mode="longest")),
        "resize_mode='longest'",
    ),
    "no open_clip model": ("ViT-Z:tag", "bart", nothing, "open_clip knows no model '.*ViT-Z'"),
    "no tag": ("=ViT-B-32:mine", "bart", nothing, "'mine' is neither a file nor a tag of ViT-B-32; its tags: openai"),
    "Hub out of reach": ("=some/clip", "bart", nothing, "some/clip is no folder, and fetching it from the Hub failed"),
    # BARTs
    "not a BART": ("clip", "clip", nothing, "of type 'clip'; give a BART"),
    "mBART": (
        "clip",
        "bart",
        edit_json("bart/config.json", model_type="mbart", decoder_start_token_id=9),
        "language behind",
    ),
    "BART without weights": ("clip", "bart", remove("bart/model.safetensors"), "bart has no weights; expected"),
    "BART cut": ("clip", "bart", cut("bart/model.safetensors"), "bart/model.safetensors: truncated or damaged"),
    "BART, bin, bit of a tensor": (
        *("clip", "bart", as_bin("bart", flip("bart/pytorch_model.bin", 0.5))),
        "bart/pytorch_model.bin: truncated or damaged .bad checksum of .*; download it again",
    ),
    "BART of no width": (
        *("clip", "bart", edit_json("bart/config.json", d_model=0)),
        "bart/config.json: d_model is 0, expected a whole number of at least 1; take the one that came",
    ),
    "BART with a rate that is a word": (
        *("clip", "bart", edit_json("bart/config.json", dropout="much")),
        "bart/config.json: .*'dropout' with value 'much' doesn't match any type.*; take the one that came",
    ),
    "BART that pads with nothing": (
        *("clip", "bart", edit_json("bart/config.json", pad_token_id=-1)),
        "bart/config.json: pad_token_id is -1, but the model embeds the tokens 0 to 267; take",
    ),
    "BART with two ends": (
        *("clip", "bart", edit_json("bart/config.json", eos_token_id=[1, 2])),
        r"bart/config.json: eos_token_id is \[1, 2\], and BART has one token at the end of a text; take",
    ),
    "generation is no JSON": (
        *("clip", "bart", cut("bart/generation_config.json")),
        "bart/generation_config.json: no JSON .*; take the one",
    ),
    **{
        f"{file} is {content}": (
            *("clip", "bart", write(f"bart/{file}", content)),
            f"bart/{file}: expected a JSON object, got (list|str|NoneType); take the one that came with the weights",
        )
        for file in ("tokenizer.json", "tokenizer_config.json")
        for content in ("[1, 2]", "[]", '"x"', "null")
    },
    "tokenizer.json of nothing": (
        *("clip", "bart", write("bart/tokenizer.json", "{}")),
        "bart: its tokenizer cannot be loaded: there is no 'added_tokens'; take the tokenizer's files",
    ),
    "length of a tokenizer in words": (
        *("clip", "bart", edit_json("bart/tokenizer_config.json", model_max_length="long")),
        "bart/tokenizer_config.json: model_max_length is 'long', expected a number of at least 1; take",
    ),
    "merges.txt empty": ("clip", "bart", without_merges, "bart/merges.txt is empty; take the tokenizer's files"),
    "tokenizer without a mask": (
        *("clip", "bart", without_mask_token),
        "bart: its tokenizer has no mask token; take the tokenizer's files that came with the weights",
    ),
    "tokenizer with a mask of its own": (
        *("clip", "bart", edit_json("bart/tokenizer_config.json", mask_token="[MASK]")),
        "bart: its tokenizer has 269 tokens, but the model embeds 268; take the tokenizer's files",
    ),
    "BART without a mask": (
        *("clip", "bart", without_mask_in_transformers),
        "bart: it has no <mask> among the 267 tokens that it embeds, like bart.large.cnn .*; take bart.large, from",
    ),
    "fairseq without a mask": (
        *("clip", "fairseq", without_mask),
        "model.pt: it has no <mask> among the 267 tokens that it embeds, like bart.large.cnn .*; take bart.large, ",
    ),
    "fairseq, no decoder": (
        *("clip", "fairseq", drop_fairseq("decoder.layers.0.fc1.weight")),
        "model.pt is no BART: 'decoder.layers.0.fc1.weight' is missing; give bart.large's",
    ),
    "fairseq, no such activation": (
        *("clip", "fairseq", edit_fairseq(activation_fn="nonsense")),
        "fairseq/model.pt: there is no 'nonsense'; download it again",
    ),
    "merges of other words": (
        *("clip", "fairseq", write("fairseq/vocab.bpe", "y es\nn o\na s\no h\nb e\n")),
        "fairseq/vocab.bpe: .*out of vocabulary; take GPT-2's",
    ),
    "BART without tokenizer": (
        *("clip", "bart", remove("bart/tokenizer.json", "bart/tokenizer_config.json")),
        "has no tokenizer; expected one of tokenizer.json",
    ),
    "tokenizer of another model": (
        *("clip", "bart", shrink_bart),
        "its tokenizer has 268 tokens, but the model embeds 260",
    ),
    "no BART": ("clip", "empty", lambda f: (f / "empty").mkdir(), "holds neither config.json nor fairseq's model.pt"),
    "no dict.txt": ("clip", "fairseq", remove("fairseq/dict.txt"), "dict.txt is missing"),
    "another dict.txt": (
        *("clip", "fairseq", edit_dictionary(lambda lines: [*lines, "madeupword0001 0", "madeupword0002 0"])),
        "dict.txt: gives 270 tokens, but model.pt embeds 268; take the dict.txt that came with this model",
    ),
    "dict.txt without counts": (
        "clip",
        "fairseq",
        edit_dictionary(lambda ls: [*ls[:3], "the", *ls[4:]]),
        "dict.txt, line 4",
    ),
    "dict.txt with words": ("clip", "fairseq", edit_dictionary(lambda ls: ["the 5", *ls[1:]]), "'the' is no number"),
    "dict.txt twice the same": (
        "clip",
        "fairseq",
        edit_dictionary(lambda ls: ls[:1] + ls[:-1]),
        "names an entry twice",
    ),
    "dict.txt beyond": ("clip", "fairseq", edit_dictionary(lambda ls: ["9999 1", *ls[1:]]), "9999 is beyond the 262"),
    "no merges": ("clip", "fairseq", remove("fairseq/vocab.bpe"), "lacks vocab.bpe"),
    "merges of three": (
        "clip",
        "fairseq",
        write("fairseq/vocab.bpe", "a b c\n"),
        "vocab.bpe, line 1: expected a pair",
    ),
    "fairseq cut": ("clip", "fairseq", cut("fairseq/model.pt"), "truncated or damaged"),
    "not fairseq's": (
        "clip",
        "fairseq",
        save("fairseq/model.pt", lambda _: {"a": torch.zeros(2)}),
        "model.pt is no BART",
    ),
}


@pytest.fixture
def workplace(originals, tmp_path) -> Path:
    """Copy all sources, for a test to damage, and make an empty folder to write into."""
    shutil.copytree(originals, tmp_path / "in")
    (tmp_path / "to").mkdir()
    return tmp_path


def run(workplace: Path, capsys, vision="clip", text="bart", *more: str, output="to/out") -> tuple[int, str]:
    """Run the command; return its exit code and what it printed on standard error.

    `vision` and `text` are sources in the workplace, or any other name after a `=`.
    """
    paths = [name[1:] if name.startswith("=") else str(workplace / "in" / name) for name in (vision, text)]
    try:
        code = main(["convert", "--vision", paths[0], "--text", paths[1], "--output", str(workplace / output), *more])
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().err


def assert_one_line(code: int, printed: str, workplace: Path):
    """Assert that the command failed with one line, wrote nothing and executed nothing of the sources."""
    assert code == 2
    assert printed.startswith("vlkd convert: error: "), printed
    assert printed.count("\n") == 1, printed
    assert not list((workplace / "to").iterdir()), "something was left behind"
    assert not (workplace / "in/intruded").exists(), "something was executed"


@pytest.mark.parametrize("name", CASES)
def test_bad_sources_get_one_line(name, workplace, capsys, monkeypatch):
    def unreachable(*_, **__):
        raise LocalEntryNotFoundError("An error happened while trying to locate the files on the Hub.\nMore lines.")

    monkeypatch.setattr(sources, "snapshot_download", unreachable)
    vision, text, change, message = CASES[name]
    change(workplace / "in")
    code, printed = run(workplace, capsys, vision, text)
    assert_one_line(code, printed, workplace)
    assert re.search(message, printed), printed


def test_output_that_exists_is_not_touched(workplace, capsys):
    (workplace / "in/full").mkdir()
    (workplace / "in/full/mine").write_text("x")
    for output in ("in/full", "in/full/mine"):
        code, printed = run(workplace, capsys, output=output)
        assert_one_line(code, printed, workplace)
        assert "exists already" in printed
    assert (workplace / "in/full/mine").read_text() == "x"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--teacher", "{to}/out"], "cannot hold both the checkpoint and the teacher"),
        (["--teacher", "{in}/clip"], "exists already"),
        (["--teacher", "{to}/no/teacher"], "There is no folder"),
        (["--max-shard-size", "much"], "expected a size such as 500MB, got 'much'"),
        (["--license", "MIT License"], "expected an identifier such as apache-2.0, got 'MIT License'"),
        (["--seed", "x"], "invalid int value: 'x'"),
        (["--vison", "x"], "did you mean --vision?"),
        (["--vison=/a/path/longer/than/the/flag"], "did you mean --vision?"),
        (["--nonsense"], "unrecognized arguments: --nonsense; see `vlkd convert --help`"),
    ],
)
def test_bad_arguments_get_one_line(more, message, workplace, capsys):
    more = [word.format(to=workplace / "to", **{"in": workplace / "in"}) for word in more]
    code, printed = run(workplace, capsys, "clip", "bart", *more)
    assert_one_line(code, printed, workplace)
    assert message in printed


def test_no_folder_to_write_into(workplace, capsys):
    code, printed = run(workplace, capsys, output="to/no/out")
    assert_one_line(code, printed, workplace)
    assert "There is no folder" in printed


def test_no_permission(workplace, capsys, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(assembling, "TemporaryDirectory", refuse)
    code, printed = run(workplace, capsys)
    assert_one_line(code, printed, workplace)
    assert "failed: Permission denied" in printed


FULL = "No space left on device"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, FULL), Exception(FULL), KeyboardInterrupt()])
def test_a_full_disk_or_an_interruption_in_the_middle_of_writing(error, workplace, capsys, monkeypatch):
    def write_half(self, folder, **_):
        Path(folder).mkdir(exist_ok=True)
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(VLKDForConditionalGeneration, "save_pretrained", write_half)
    code, printed = run(workplace, capsys, "clip", "bart", "--teacher", str(workplace / "to/teacher"))
    assert_one_line(code, printed, workplace)
    assert (FULL if isinstance(error, Exception) else "interrupted") in printed


def test_report_names_every_part_and_the_proof(workplace, capsys):
    paths = {"--vision": "in/clip", "--text": "in/fairseq", "--output": "to/out", "--teacher": "to/teacher"}
    arguments = [word for flag, path in paths.items() for word in (flag, str(workplace / path))]
    assert main(["convert", *arguments, "--seed", "7"]) == 0
    printed = capsys.readouterr()
    assert not printed.err
    for name in ("vision tower", "text teacher", "language model", "W_e", "W'_e", "W_i", "new, seed 7"):
        assert name in printed.out
    for name in ("image embeddings, relative", "text embeddings, relative", "pixels after", "BART's logits", "1e-05"):
        assert name in printed.out
    assert load_file(workplace / "to/teacher/model.safetensors")
