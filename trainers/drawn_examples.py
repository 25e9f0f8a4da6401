"""Data sets whose examples bring their own randomness: the seed of their masks and the texts replayed beside them."""

import hashlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from .draws import mix, uniforms
from .replay import ReplayCorpus


_MASKS, _REPLAY, _HOW_MANY = range(3)
_CONTENT = ("caption", "input_ids", "image_embeds", "pixel_values", "image")
_MOST_NUMBERS = 4096


def example_key(example: dict[str, Any]) -> int:
    """Hash what an example says and shows to an integer of 64 bits, the same in every process and run.

    Of an image some thousand numbers are read, spread over it. Two examples have one key if their captions are equal
    and so are these numbers of their images.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name in _CONTENT:
        value = example.get(name)
        if value is not None:
            digest.update(str(value).encode() if isinstance(value, str | os.PathLike) else _some_numbers(value))
    return int.from_bytes(digest.digest(), "little")


def _some_numbers(value: Any) -> bytes:
    """Read numbers spread over a tensor, array, list or picture, alike whichever of them it is."""
    numbers = np.asarray(value.detach().cpu().float() if isinstance(value, Tensor) else value).reshape(-1)
    return numbers[:: max(1, len(numbers) // _MOST_NUMBERS)].astype(np.float64).tobytes()


def draw_from(examples: Any, seed: int, fixed: bool = False) -> "DrawnExamples | DrawnStream":
    """Wrap a data set in [`DrawnExamples`], or a stream, which may have a length too, in [`DrawnStream`]."""
    if isinstance(examples, IterableDataset):  # those of `datasets` are, too
        return DrawnStream(examples, seed, fixed)
    return DrawnExamples(examples, seed, fixed=fixed)


class DrawnExamples(Dataset):
    """Adds to each example a `draw`, an integer for the collator to seed its masks with, and a list `replay`.

    Both depend on the run's seed, the epoch and the example's place in the data set, and on nothing else: not on the
    batch, the worker or the process that the example comes to, nor on whether the run was interrupted before.

    Args:
        examples: any data set with a length, whose items are dictionaries.
        seed: the run's seed.
        replay: texts to replay; each example brings `replay_per_example` of them, on average if that is no integer.
        fixed: draw the same in every epoch, for evaluation; loaders count epochs there too.
    """

    def __init__(
        self,
        examples: Any,
        seed: int,
        replay: ReplayCorpus | None = None,
        replay_per_example: float = 0.0,
        fixed: bool = False,
    ):
        self.examples = examples
        self.seed = seed
        self.replay = replay
        self.replay_per_example = replay_per_example
        self.fixed = fixed
        self.epoch = torch.zeros((), dtype=torch.long).share_memory_()  # seen by loader workers that outlive an epoch

    def set_epoch(self, epoch: int):
        if not self.fixed:
            self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

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


class DrawnStream(IterableDataset):
    """Adds a `draw` to each example of a stream, as [`DrawnExamples`] does where examples have a place.

    It depends on the run's seed, the epoch and the example itself, see [`example_key`], and on nothing else. Nothing
    is counted, for each loader worker would count on its own, and a resumed run from the beginning.

    Args:
        examples: an iterable data set of dictionaries. If it has a `set_epoch`, that is called before each pass, in
            each worker.
        seed, fixed: as in DrawnExamples.
    """

    def __init__(self, examples: IterableDataset, seed: int, fixed: bool = False):
        self.examples = examples
        self.seed = seed
        self.fixed = fixed
        self.epoch = torch.zeros((), dtype=torch.long).share_memory_()  # as in DrawnExamples

    def set_epoch(self, epoch: int):
        if not self.fixed:
            self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.examples)  # type: ignore[arg-type]  # a TypeError where the stream has none, as callers expect

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch = int(self.epoch)
        if hasattr(self.examples, "set_epoch"):
            self.examples.set_epoch(epoch)
        for example in self.examples:
            yield {**example, "draw": int(mix(self.seed, epoch, example_key(example), _MASKS))}
