import hashlib

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import tiny_pairs

from modeling_vlkd.trainers.draws import DrawnExamples, DrawnStream, draw_from, example_key


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, examples):
        self.examples = examples
        self.epochs = []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)

    def __iter__(self):
        return iter(self.examples)


class StreamWithLength(Stream):
    def __len__(self):
        return len(self.examples)


def test_streams_are_told_from_data_sets_with_places_though_both_may_have_a_length():
    pairs = tiny_pairs(2)
    table = datasets.Dataset.from_list([{"caption": "a"}])
    for streaming in (Stream(pairs), StreamWithLength(pairs), table.to_iterable_dataset()):
        assert isinstance(draw_from(streaming, 0), DrawnStream)
    for placed in (pairs, table):
        assert isinstance(draw_from(placed, 0), DrawnExamples)
    assert len(draw_from(StreamWithLength(pairs), 0)) == 2
    with pytest.raises(TypeError):
        len(draw_from(Stream(pairs), 0))


def test_draws_of_a_stream_follow_the_example_the_seed_and_the_epoch():
    def draws(pairs, seed=0, epoch=0):
        stream = draw_from(Stream(pairs), seed)
        stream.set_epoch(epoch)
        return [example["draw"] for example in stream]

    pairs = tiny_pairs()
    first = draws(pairs)
    assert len(set(first)) == 12
    assert draws(pairs[::-1]) == first[::-1]
    assert set(first).isdisjoint(draws(pairs, epoch=1))
    assert set(first).isdisjoint(draws(pairs, seed=1))
    other_picture = {**pairs[0], "image_embeds": pairs[1]["image_embeds"]}
    assert draws([other_picture]) != first[:1]


def test_the_stream_is_told_of_the_epoch_it_begins():
    inner = Stream(tiny_pairs(1))
    stream = draw_from(inner, 0)
    for epoch in (0, 3):
        stream.set_epoch(epoch)
        list(stream)
    assert inner.epochs == [0, 3]


def test_the_key_is_that_of_the_content_whatever_holds_it():
    numbers = torch.rand(5000, generator=torch.Generator().manual_seed(0))
    held = [numbers, numbers.numpy(), numbers.tolist(), numbers[None]]
    assert len({example_key({"caption": "a", "image_embeds": each}) for each in held}) == 1
    picture = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    assert example_key({"image": picture}) == example_key({"image": np.asarray(picture)})
    assert example_key({"image": picture}) != example_key({"image": picture.transpose(Image.FLIP_LEFT_RIGHT)})
    assert example_key({"input_ids": [0, 5, 2], "other": 1}) == example_key({"input_ids": torch.tensor([0, 5, 2])})
    assert example_key({"image": "a.png"}) != example_key({"image": "b.png"})


def test_the_key_is_a_hash_that_python_does_not_salt():
    digest = hashlib.blake2b(b"a red box" + b"b.png", digest_size=8).digest()
    assert example_key({"caption": "a red box", "image": "b.png"}) == int.from_bytes(digest, "little")


def test_iterating_over_places_ends_though_the_data_set_does_not_mind():
    class Endless(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return {"caption": str(index)}

    assert [example["caption"] for example in DrawnExamples(Endless(), 0)] == ["0", "1", "2"]
