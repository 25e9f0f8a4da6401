import argparse
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from modeling_vlkd.conversion.checkpoints import find_state_dict, open_checkpoint, open_state_dict
from modeling_vlkd.conversion.errors import ConversionError
from modeling_vlkd.conversion.torchscript import TorchScriptTensors


class Shared(nn.Module):
    """Tensors of all kinds that archives have: of several types, transposed, and views of one storage."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 2)
        self.tied = self.inner.weight
        self.register_buffer("halves", torch.arange(6.0).half())
        self.register_buffer("transposed", torch.arange(6.0).reshape(2, 3).T)
        self.register_buffer("part", torch.arange(10)[3:7])
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("brain", torch.arange(3.0).bfloat16())
        self.numbers = [1, 2]

    def forward(self, x):
        return self.inner(x)


def test_torchscript_tensors_are_bit_equal(tmp_path):
    traced = torch.jit.script(Shared())
    traced.save(str(tmp_path / "model.pt"))
    tensors = open_state_dict(tmp_path / "model.pt")
    expected = traced.state_dict()
    assert isinstance(tensors, TorchScriptTensors)
    assert set(tensors) == set(expected)
    for key, tensor in expected.items():
        assert tensors[key].dtype == tensor.dtype
        assert torch.equal(tensors[key], tensor), key


def test_only_what_is_asked_for_is_read(tmp_path, monkeypatch):
    """So the vision tower of a CLIP can be converted even if the whole CLIP does not fit into memory."""
    torch.jit.script(Shared()).save(str(tmp_path / "model.pt"))
    tensors = open_state_dict(tmp_path / "model.pt")
    read, names = zipfile.ZipFile.read, []
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda self, name: names.append(name) or read(self, name))
    assert "halves" in tensors
    assert not names
    tensors["halves"]
    assert len(names) == 1


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("wrapper", ["{}", "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_pickles_of_training_runs(old_format, wrapper, prefix, tmp_path):
    state = {f"{prefix}a.weight": torch.arange(4.0), f"{prefix}b": torch.ones(2, dtype=torch.long)}
    content = state if wrapper == "{}" else {wrapper: state, "epoch": 3, "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "model.pt", _use_new_zipfile_serialization=not old_format)
    tensors = open_state_dict(tmp_path / "model.pt")
    assert set(tensors) == {"a.weight", "b"}
    assert torch.equal(tensors["a.weight"], torch.arange(4.0))


def test_formats_are_known_by_their_content_and_not_by_their_name(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "weights.pt")
    torch.save({"a": torch.ones(2)}, tmp_path / "weights.bin")
    for name in ("weights.pt", "weights.bin"):
        assert torch.equal(open_state_dict(tmp_path / name)["a"], torch.ones(2))


def test_a_prefix_of_some_keys_only_is_left_alone():
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert set(find_state_dict(state, "x")) == {"module.a", "b"}


def test_jit_load_is_never_called(tmp_path, monkeypatch):
    torch.jit.script(Shared()).save(str(tmp_path / "model.pt"))
    monkeypatch.setattr(torch.jit, "load", None)
    assert len(open_state_dict(tmp_path / "model.pt")) == 8


def test_each_half_of_a_file_is_refused(tmp_path):
    """A file of any format that is cut anywhere is not taken for a shorter one that is whole."""
    torch.jit.script(Shared()).save(str(tmp_path / "script"))
    torch.save({"a": torch.ones(40)}, tmp_path / "zip")
    torch.save({"a": torch.ones(40)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    save_file({"a": torch.ones(40)}, tmp_path / "safetensors")
    for name in ("script", "zip", "old", "safetensors"):
        content = (tmp_path / name).read_bytes()
        for share in (0.01, 0.2, 0.5, 0.8, 0.99):
            (tmp_path / "cut").write_bytes(content[: int(len(content) * share)])
            with pytest.raises(ConversionError):
                dict(open_checkpoint(tmp_path / "cut"))


def refusal(path) -> str:
    """Return the message with which a file is refused; empty if it is read. Any other error fails the test."""
    try:
        dict(open_checkpoint(path))
    except ConversionError as error:
        return str(error)
    return ""


def test_garbage_of_any_kind_is_refused_in_one_line(tmp_path):
    """A wrong bit anywhere, and garbage after a valid beginning, make readers raise all kinds of errors."""
    torch.jit.script(Shared()).save(str(tmp_path / "script"))
    torch.save({"a": torch.ones(40)}, tmp_path / "zip")
    random = np.random.default_rng(0)
    whole = [(tmp_path / name).read_bytes() for name in ("script", "zip")]
    spoiled = [bytearray(content) for content in whole for _ in range(20)]
    for content in spoiled:
        start = content.index(b"PK\x01\x02")  # the directory of the zip file, at its end
        content[random.integers(start, len(content))] ^= 0x44
    heads = [
        b"",
        b"\x80",
        b"\x80\x02",
        b"\x80\x02}q\x00",
        b"PK\x03\x04",
        b"\x08" + bytes(7) + b"{",
        b"<html>",
        b"\x00",
    ]
    spoiled += [head + random.bytes(size) for head in heads for size in (0, 1, 40) for _ in range(3)]
    for content in spoiled:
        (tmp_path / "spoiled").write_bytes(content)
        said = refusal(tmp_path / "spoiled")
        assert "\n" not in said
        assert not said or str(tmp_path / "spoiled") in said  # in a date, for example, a wrong bit does no harm
        assert not said or "ownload it again" in said
