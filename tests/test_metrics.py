import pytest
import torch
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from modeling_vlkd.evaluation.metrics import (
    balanced_exact_match,
    exact_match,
    image_text_recall,
    retrieval_recall,
    word_f1,
)


def test_exact_match_counts_equal_strings():
    assert exact_match(["red", "no", "yes"], ["red", "yes", "yes"]) == pytest.approx(2 / 3)


def test_exact_match_refuses_lists_of_unequal_length():
    with pytest.raises(ValueError, match="1 predictions and 2 references"):
        exact_match(["red"], ["red", "blue"])


def test_always_saying_the_commoner_answer_scores_a_half_when_balanced():
    references = ["no"] * 9 + ["yes"]
    assert balanced_exact_match(["no"] * 10, references, groups=references) == 0.5
    assert exact_match(["no"] * 10, references) == 0.9


def test_retrieval_finds_what_points_the_same_way():
    queries, candidates = torch.eye(3), torch.eye(3) * torch.tensor([[1.0], [5.0], [0.1]])  # lengths do not matter
    assert retrieval_recall(queries, candidates) == [1.0]
    assert retrieval_recall(queries, candidates.roll(1, dims=0)) == [0.0]
    assert retrieval_recall(queries, candidates.roll(1, dims=0), ks=(1, 3)) == [0.0, 1.0]


def test_word_f1_is_of_the_nearest_reference():
    assert word_f1("A red circle.", ["a blue box", "a red circle"]) == 1.0
    assert word_f1("a a red", ["a red circle"]) == pytest.approx(2 / 3)  # two words of three, both ways
    assert word_f1("", ["a red circle"]) == word_f1("green", ["a red circle"]) == word_f1("green", []) == 0.0


def test_a_perfect_model_finds_any_caption_of_a_picture():
    """Three captions each of four pictures: what is found first is right, though it is one caption of three."""
    images = torch.eye(4).repeat_interleave(3, dim=0)
    pictures, captions = torch.arange(4).repeat_interleave(3), torch.arange(12)
    assert image_text_recall(images, images, pictures, captions, ks=(1,)) == ([1.0], [1.0])


def test_an_equal_caption_of_another_picture_is_right():
    images, keys = torch.eye(2), torch.tensor([7, 8])
    texts = images.flip(0)  # each is nearest to the other's picture
    assert image_text_recall(images, texts, keys, torch.tensor([3, 3]), ks=(1,)) == ([1.0], [1.0])
    assert image_text_recall(images, texts, keys, torch.tensor([3, 4]), ks=(1, 2)) == ([0.0, 1.0], [0.0, 1.0])


def test_a_picture_stands_once_among_queries_and_candidates():
    """A has three captions and B one. All captions are nearest to A, and B is nearest to one of A's."""
    images = torch.eye(2)[[0, 0, 0, 1]]
    texts = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.4], [1.0, 0.3]])
    keys = torch.tensor([5, 5, 5, 9]), torch.arange(4)
    assert image_text_recall(images, texts, *keys, ks=(1, 2)) == ([0.5, 1.0], [0.75, 1.0])


def plain_recall(queries, candidates, relevant, k):
    order = (normalize(queries, dim=-1) @ normalize(candidates, dim=-1).T).argsort(dim=1, descending=True)
    return sum(relevant[i, order[i, :k]].any().item() for i in range(len(queries))) / len(queries)


def test_retrieval_by_chunks_equals_the_whole_matrix():
    generator = torch.Generator().manual_seed(0)
    pictures, captions = (torch.randint(high, (90,), generator=generator) for high in (30, 60))
    images = torch.randn(30, 8, generator=generator)[pictures]
    texts = images + torch.randn(90, 8, generator=generator)
    own = {(p.item(), c.item()) for p, c in zip(pictures, captions)}
    present = pictures.unique()
    relevant = torch.tensor([[(p.item(), c.item()) in own for c in captions] for p in present])
    rows = torch.stack([images[(pictures == p).nonzero()[0, 0]] for p in present])
    i2t, t2i = image_text_recall(images, texts, pictures * 1000 - 7, captions - 30, ks=(1, 5, 10))
    assert i2t == pytest.approx([plain_recall(rows, texts, relevant, k) for k in (1, 5, 10)])
    assert t2i == pytest.approx([plain_recall(texts, rows, relevant.T, k) for k in (1, 5, 10)])
    others = images + torch.randn(90, 8, generator=generator)  # no two alike
    expected = [plain_recall(texts, others, torch.eye(90).bool(), k) for k in (1, 5)]
    assert retrieval_recall(texts, others, ks=(1, 5), chunk=7) == pytest.approx(expected)


def test_retrieval_holds_no_square_matrix():
    class LargestTensor(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            outputs = func(*args, **(kwargs or {}))
            for output in outputs if isinstance(outputs, tuple | list) else [outputs]:
                self.size = max(self.size, output.numel() if isinstance(output, torch.Tensor) else 0)
            return outputs

    pairs, generator = 8192, torch.Generator().manual_seed(0)
    images = torch.randn(pairs, 4, generator=generator)
    with LargestTensor() as largest:
        image_text_recall(images, images, torch.arange(pairs), torch.arange(pairs), ks=(1,))
    assert 0 < largest.size <= 1024 * pairs
