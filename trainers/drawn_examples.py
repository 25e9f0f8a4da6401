"""A data set whose examples bring their own randomness: the seed of their masks and the texts replayed beside them."""

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from .draws import mix, uniforms
from .replay import ReplayCorpus


_MASKS, _REPLAY, _HOW_MANY = range(3)


class DrawnExamples(Dataset):
    """Adds to each example a `draw`, an integer for the collator to seed its masks with, and a list `replay`.

    Both depend on the run's seed, the epoch and the example's place in the data set, and on nothing else: not on the
    batch, the worker or the process that the example comes to, nor on whether the run was interrupted before.

    Args:
        examples: any data set with a length, whose items are dictionaries.
        seed: the run's seed.
        replay: texts to replay; each example brings `replay_per_example` of them, on average if that is no integer.
    """

    def __init__(
        self,
        examples: Any,
        seed: int,
        replay: ReplayCorpus | None = None,
        replay_per_example: float = 0.0,
    ):
        self.examples = examples
        self.seed = seed
        self.replay = replay
        self.replay_per_example = replay_per_example
        self.epoch = torch.zeros((), dtype=torch.long).share_memory_()  # seen by loader workers that outlive an epoch

    def set_epoch(self, epoch: int):
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        # The data loader asks for a whole batch where a data set can give one, which is faster for memory-mapped ones.
        if hasattr(self.examples, "__getitems__"):
            examples = self.examples.__getitems__(indices)
        else:
            examples = [self.examples[index] for index in indices]
        seeds = mix(self.seed, int(self.epoch), np.array(indices))
        draws = mix(seeds, _MASKS)
        extra: list[dict[str, Any]] = [{"draw": int(draw)} for draw in draws]
        if self.replay is not None:
            counts = np.floor(self.replay_per_example + uniforms(seeds, 1, _HOW_MANY)[:, 0]).astype(int)
            picks = np.floor(uniforms(seeds, counts.max(initial=0), _REPLAY) * len(self.replay)).astype(int)
            for fields, count, row in zip(extra, counts, picks):
                fields["replay"] = [self.replay[pick] for pick in row[:count]]
        return [{**example, **fields} for example, fields in zip(examples, extra)]
