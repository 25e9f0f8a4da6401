"""Opens checkpoint files as mappings from names to tensors, whatever their format, and executes none of them."""

import argparse
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from .errors import ConversionError, explained
from .tensor_mapping import TensorMapping
from .torchscript import TorchScriptTensors


WEIGHTS_REMEDY = "give the file with the model's weights, or download it again"


class SafetensorsFile(TensorMapping):
    """The tensors of a safetensors file, each read on demand."""

    def __init__(self, path: Path):
        self.path = path
        self.file = safe_open(path, framework="pt")
        super().__init__(dict.fromkeys(self.file.keys()))

    def __getitem__(self, key: str) -> torch.Tensor:
        if key not in self.names:
            raise KeyError(key)
        with explained(self.path):
            return self.file.get_tensor(key)


def open_checkpoint(path: str | Path) -> Any:
    """Opens a checkpoint of any format that is known by its first bytes, not by its name.

    Args:
        path: safetensors, a TorchScript archive, or a pickle written by `torch.save`, new (zip) or old.

    Returns:
        A mapping from names to tensors, or whatever plain data a pickle holds.

    Raises:
        ConversionError: the file is missing, damaged, of another format, or asks to execute something.
    """
    path = Path(path)
    if not path.is_file():
        raise ConversionError(f"{path} is not a file; give the path of a checkpoint.")
    with path.open("rb") as file:
        head = file.read(16)
    with explained(path):
        if head[:4] == b"PK\x03\x04":
            return open_zip(path)
        if head[8:9] == b"{":  # safetensors: the length of the header in eight bytes, then the header, which is JSON
            return SafetensorsFile(path)
        if head[:1] == b"\x80":
            return load_pickle(path)
    found = f"it begins with {head[:8]!r}" if head else "it is empty"
    raise ConversionError(f"{path}: neither safetensors nor a PyTorch checkpoint; {found}. Download it again.")


def open_zip(path: Path) -> Any:
    """Opens what `torch.jit.save` or `torch.save` wrote; they differ by the constants of the compiled code."""
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            return TorchScriptTensors(path)
        if damaged := archive.testzip():  # torch.load does not look at checksums
            raise zipfile.BadZipFile(f"bad checksum of {damaged}")
    return load_pickle(path, mmap=True)


def load_pickle(path: Path, mmap: bool = False) -> Any:
    """Unpickles data only; an `argparse.Namespace`, in which fairseq keeps its command line, is data."""
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd bytes, which end in an error or do no harm
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def find_state_dict(content: Any, path: str | Path) -> Mapping[str, torch.Tensor]:
    """Takes the state dict out of a training checkpoint, if it is one, and drops the prefix of data parallelism.

    Raises:
        ConversionError: there are no tensors, or something else among them.
    """
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise ConversionError(f"{path}: holds no state dict but {type(content).__name__}; {WEIGHTS_REMEDY}.")
    if isinstance(content, (TorchScriptTensors, SafetensorsFile)):
        return content
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise ConversionError(
                f"{path}: {key!r} holds {type(value).__name__} where a tensor was expected; {WEIGHTS_REMEDY}."
            )
    if all(key.startswith("module.") for key in content):
        return {key.removeprefix("module."): tensor for key, tensor in content.items()}
    return content


def open_state_dict(path: str | Path) -> Mapping[str, torch.Tensor]:
    """Opens a checkpoint file that holds one model's tensors."""
    return find_state_dict(open_checkpoint(path), path)
