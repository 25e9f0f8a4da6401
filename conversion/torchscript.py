"""Reads the tensors of a TorchScript archive as data, without running any of its code.

OpenAI published CLIP as such archives: zip files with code, a pickle of the module tree, and one raw file for each
storage. `torch.jit.load` would compile and link that code. Here an unpickler that knows nothing but tensors reads the
pickle, and the module tree is walked as nested dictionaries.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .errors import ConversionError, explained
from .tensor_mapping import TensorMapping


STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Storage(NamedTuple):
    """A raw file of the archive: its name and the type of its values."""

    name: str
    dtype: torch.dtype


class TensorView(NamedTuple):
    """Where a tensor lies in its storage; its values are read when they are asked for."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class ScriptModule:
    """Stands for any compiled class: keeps its attributes, and has no behavior."""

    def __setstate__(self, attributes: dict[str, Any]):
        self.attributes = attributes


def rebuild_tensor(storage: Storage, offset: int, size: tuple, stride: tuple, *_: Any) -> TensorView:
    """Take the place of `torch._utils._rebuild_tensor_v2`."""
    return TensorView(storage, offset, tuple(size), tuple(stride))


def keep_list(values: Any, *_: Any) -> Any:
    """Take the place of the functions that mark a list with the type of its items."""
    return values


ALLOWED_GLOBALS = {
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("collections", "OrderedDict"): OrderedDict,
    **{("torch.jit._pickle", f"build_{kind}list"): keep_list for kind in ("int", "double", "bool", "tensor")},
    ("torch.jit._pickle", "restore_type_tag"): keep_list,
    **{("torch", name): dtype for name, dtype in STORAGE_DTYPES.items()},
}


class TensorUnpickler(pickle.Unpickler):
    """Knows tensors, lists and module attributes; refuses anything else that a pickle asks for, and names it."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return ScriptModule
        if (module, name) not in ALLOWED_GLOBALS:
            raise ConversionError(f"asks for {module}.{name}, which is not data; nothing of it was executed")
        return ALLOWED_GLOBALS[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        _, dtype, name, *_ = pid  # ("storage", type, file, device, number of values)
        return Storage(name, dtype)


def list_tensors(value: Any, path: str = "") -> Iterator[tuple[str, TensorView]]:
    """Walk the module tree and give each tensor with its dotted name, such as `visual.ln_pre.weight`."""
    if isinstance(value, TensorView):
        yield path, value
    elif isinstance(value, ScriptModule):
        for name, attribute in value.attributes.items():
            yield from list_tensors(attribute, f"{path}.{name}" if path else name)


class TorchScriptTensors(TensorMapping):
    """The tensors of an archive by their dotted names. Each is read, and its checksum verified, on demand."""

    def __init__(self, path: Path):
        self.path = path
        self.archive = zipfile.ZipFile(path)
        pickles = [name for name in self.archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ConversionError(f"holds {len(pickles)} files data.pkl instead of one")
        self.root = pickles[0].removesuffix("data.pkl")
        with self.archive.open(pickles[0]) as file:
            super().__init__(dict(list_tensors(TensorUnpickler(file).load())))

    def __getitem__(self, key: str) -> torch.Tensor:
        view = self.names[key]
        with explained(self.path):
            content = bytearray(self.archive.read(f"{self.root}data/{view.storage.name}"))
            values = torch.frombuffer(content, dtype=view.storage.dtype)
            return values.as_strided(view.size, view.stride, view.offset)
