"""Data sets whose examples bring random numbers without a state: what is drawn depends on a seed alone.

Masks and replayed texts are drawn from these, so that they do not depend on how examples are spread over batches,
micro-batches, loader workers and processes, and so that a resumed run draws what the uninterrupted one would have.
"""

import hashlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from modeling_vlkd.evaluation.random_numbers import mix


_DRAW = 0  # the stream of an example's own `draw`; replay reads others
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
    return DrawnExamples(examples, seed, fixed)


class DrawnExamples(Dataset):
    """Adds to each example a `draw`, an integer for the collator to seed its masks with.

    It depends on the run's seed, the epoch and the example's place in the data set, and on nothing else: not on the
    batch, the worker or the process that the example comes to, nor on whether the run was interrupted before.

    Args:
        examples: any data set with a length, whose items are dictionaries.
        seed: the run's seed.
        fixed: draw the same in every epoch, for evaluation; loaders count epochs there too.
    """

    def __init__(self, examples: Any, seed: int, fixed: bool = False):
        self.examples = examples
        self.seed = seed
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
        drawn = self.draw_fields(mix(self.seed, int(self.epoch), np.array(indices)))
        return [{**example, **fields} for example, fields in zip(examples, drawn)]

    def draw_fields(self, seeds: np.ndarray) -> list[dict[str, Any]]:
        """Draw the fields that examples are given, from their seeds, `(examples,)`."""
        return [{"draw": int(draw)} for draw in mix(seeds, _DRAW)]


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
            yield {**example, "draw": int(mix(self.seed, epoch, example_key(example), _DRAW))}
