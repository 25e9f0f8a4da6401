"""Means of several quantities between two logs, kept on the device until they are read."""

import torch
from accelerate import Accelerator
from torch import Tensor


class RunningMeans:
    """Averages named scalars; what was not given in a step counts as 0 in it.

    Args:
        names: what is averaged, the same in every process.
    """

    def __init__(self, names: list[str]):
        self.names = names
        self.sums: Tensor | None = None
        self.weight = 0.0

    def add(self, values: dict[str, Tensor], weight: float = 1.0):
        """Add values, () each; with weights 1/n, the values of n micro-batches count as one step of their sum."""
        present = next(iter(values.values()))
        stacked = torch.stack(
            [values[name].detach().float() if name in values else present.new_zeros(()) for name in self.names]
        )
        self.sums = stacked if self.sums is None else self.sums + stacked
        self.weight += weight

    def drain(self, accelerator: Accelerator) -> dict[str, float]:
        """Give the means over steps and processes, and start again."""
        if self.sums is None:
            return {}
        means = accelerator.reduce(self.sums / self.weight, reduction="mean").tolist()
        self.sums, self.weight = None, 0.0
        return dict(zip(self.names, means))
