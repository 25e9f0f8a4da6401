"""What all opened checkpoints have in common: names at once, tensors when they are asked for."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch


class TensorMapping(Mapping[str, torch.Tensor]):
    """A mapping from names to tensors that reads each on demand; a subclass says how, in `__getitem__`.

    Args:
        names: of all tensors, with what the subclass has to know of each.
    """

    def __init__(self, names: dict[str, Any]):
        self.names = names

    def __contains__(self, key: object) -> bool:
        return key in self.names  # the one of `Mapping` would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
