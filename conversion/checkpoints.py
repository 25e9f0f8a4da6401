"""Opens checkpoint files of several formats as mappings from names to tensors; no code in them is executed."""

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
    """Open a checkpoint; its first bytes tell the format, whatever the file is called.

    Args:
        path: safetensors, a TorchScript archive, or a pickle written by `torch.save`, new (zip) or old.

    Returns:
        A mapping from names to tensors; for a pickle, the plain data in it, of any type.

    Raises:
        ConversionError: the file is missing, damaged or of another format, or it would execute code.
    """
    path = Path(path)
    if not path.is_file():
        raise ConversionError(f"{path} is not a file; give the path of a checkpoint.")
    with path.open("rb") as file:
        head = file.read(16)
    with explained(path):
        if head[:4] == b"PK\x03\x04":  # a zip file
            return open_zip(path)
        if head[8:9] == b"{":  # safetensors: the length of the header in eight bytes, then the header, which is JSON
            return SafetensorsFile(path)
        if head[:1] == b"\x80":  # a pickle
            return load_pickle(path)
    found = f"it begins with {head[:8]!r}" if head else "it is empty"
    raise ConversionError(f"{path}: neither safetensors nor a PyTorch checkpoint; {found}. Download it again.")


def open_zip(path: Path) -> Any:
    """Open a zip file of `torch.jit.save` or `torch.save`; only the first writes a file with constants of its code."""
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            return TorchScriptTensors(path)
        if damaged := archive.testzip():  # torch.load does not compare checksums
            raise zipfile.BadZipFile(f"bad checksum of {damaged}")
    return load_pickle(path, mmap=True)


def load_pickle(path: Path, mmap: bool = False) -> Any:
    """Unpickle data only; this includes `argparse.Namespace`, in which fairseq keeps its command line."""
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of odd bytes; those that do harm raise an error, too
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def find_state_dict(content: Any, path: str | Path) -> Mapping[str, torch.Tensor]:
    """Find the tensors in the content of a checkpoint.

    A training checkpoint keeps them under `state_dict` or `model`. The prefix `module.`, which data parallelism
    adds, is removed.

    Raises:
        ConversionError: there are no tensors, or there is something else among them.
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
    """Open a checkpoint file that holds one model's tensors."""
    return find_state_dict(open_checkpoint(path), path)
