"""What all opened checkpoints have in common: the names are known at once, each tensor is read when it is used."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch


class TensorMapping(Mapping[str, torch.Tensor]):
    """A mapping from names to tensors that reads each on demand; a subclass says how, in `__getitem__`.

    Args:
        names: the names of all tensors, each with what the subclass needs to find it.
    """

    def __init__(self, names: dict[str, Any]):
        self.names = names

    def __contains__(self, key: object) -> bool:
        return key in self.names  # the method of `Mapping` would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
