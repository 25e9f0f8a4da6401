"""Retrieval against a straight-line version, closed forms, and every order of what is equally near."""

from itertools import permutations

import numpy as np
import pytest
import torch

from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.ranking import CHUNK, QueryRanks, rank_both_ways, rank_folds


def random_embeddings(images: int, captions: int = 5, dim: int = 16, noise: float = 1.2):
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(images, dim, generator=generator)
    image_of = torch.arange(images).repeat_interleave(captions)
    texts = pictures[image_of] + noise * torch.randn(len(image_of), dim, generator=generator)
    return pictures, texts, image_of


def plain_figures(pictures, texts, image_of) -> dict[str, float]:
    """Figures as the evaluation scripts of COCO compute them, one query after the other, from sorted lists."""
    pictures, texts = (each.double().numpy() for each in (pictures, texts))
    pictures, texts = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (pictures, texts))
    near = pictures @ texts.T
    i2t = np.array([min(np.flatnonzero(image_of[np.argsort(-row)] == place)) for place, row in enumerate(near)])
    t2i = np.array([np.argsort(-row).tolist().index(image_of[place]) for place, row in enumerate(near.T)])
    figures = {f"{name}_R@{k}": np.mean(found < k) for name, found in (("i2t", i2t), ("t2i", t2i)) for k in (1, 5, 10)}
    figures["mean_recall"] = np.mean(list(figures.values()))
    return figures | {f"{name}_median_rank": np.median(each) + 1 for name, each in (("i2t", i2t), ("t2i", t2i))}


@pytest.mark.parametrize("images", [3, 2 * CHUNK + 7])
def test_figures_equal_a_straight_line_version(images: int):
    pictures, texts, image_of = random_embeddings(images)
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(1))  # captions in any order
    texts, image_of = texts[order], image_of[order]
    figures = rank_both_ways(pictures, 3 * texts, image_of).figures()
    expected = plain_figures(pictures, texts, image_of.numpy())
    assert figures == pytest.approx(expected)
    assert list(figures) == list(expected)
    near = torch.nn.functional.cosine_similarity(pictures[:, None], texts[None], dim=-1)
    ranking = rank_both_ways(pictures, texts, image_of)
    assert ranking.images.nearest.tolist() == near.argmax(dim=1).tolist()
    assert ranking.texts.nearest.tolist() == near.argmax(dim=0).tolist()
    if images > 10:
        assert 0.05 < figures["t2i_R@1"] < figures["i2t_R@1"] < 0.95


def test_pictures_may_have_different_numbers_of_captions():
    pictures, texts, image_of = random_embeddings(40)
    kept = torch.tensor([place % 5 <= image % 5 for place, image in enumerate(image_of.tolist())])
    texts, image_of = texts[kept], image_of[kept]
    assert set(torch.bincount(image_of).tolist()) == {1, 2, 3, 4, 5}
    expected = plain_figures(pictures, texts, image_of.numpy())
    assert rank_both_ways(pictures, texts, image_of.tolist()).figures() == pytest.approx(expected)


def test_a_perfect_model_and_the_worst():
    """Every caption is its picture; then the own captions are the farthest, behind five of each of eleven others."""
    pictures, image_of = torch.eye(12), torch.arange(12).repeat_interleave(5)
    perfect = rank_both_ways(pictures, pictures[image_of], image_of).figures()
    assert set(perfect.values()) == {1.0}
    worst = rank_both_ways(pictures, -pictures[image_of], image_of)
    assert worst.images.nearer.tolist() == [55] * 12
    assert worst.texts.nearer.tolist() == [11] * 60
    figures = worst.figures()
    assert (figures["i2t_median_rank"], figures["t2i_median_rank"]) == (56, 12)
    assert figures["mean_recall"] == 0


def test_a_model_that_embeds_all_alike_scores_what_guessing_scores():
    """At k of 60 captions with 5 right ones, 1 - C(55, k) / C(60, k); at k of 12 pictures, k / 12."""
    image_of = torch.arange(12).repeat_interleave(5)
    figures = rank_both_ways(torch.ones(12, 3), torch.full((60, 3), 0.1), image_of).figures()
    assert figures["i2t_R@1"] == pytest.approx(5 / 60)
    missed = np.prod([(55 - drawn) / (60 - drawn) for drawn in range(10)])
    assert figures["i2t_R@10"] == pytest.approx(1 - missed)
    assert [figures[f"t2i_R@{k}"] for k in (1, 5, 10)] == pytest.approx([1 / 12, 5 / 12, 10 / 12])
    assert figures["t2i_median_rank"] == pytest.approx(6.5)
    assert figures["i2t_median_rank"] == pytest.approx(1 + 55 / 6)


@pytest.mark.parametrize(("nearer", "tied", "right"), [(0, 3, 1), (1, 2, 2), (2, 0, 1), (3, 1, 3), (0, 4, 2)])
def test_ties_count_as_the_mean_over_all_their_orders(nearer: int, tied: int, right: int):
    places = [
        nearer + order.index(True) + 1  # the rank of the first right one
        for order in permutations([False] * tied + [True] * right)
    ]
    queries = QueryRanks(*(torch.tensor([float(each)]) for each in (nearer, tied, right, 0)))
    assert queries.ranks().item() == pytest.approx(np.mean(places))
    for k in (1, 2, 3, 5, 10):
        assert queries.hits(k).item() == pytest.approx(np.mean([place <= k for place in places]))


def test_the_same_caption_of_another_picture_is_wrong_and_tied():
    """As published: two pictures have one caption, which cannot be told apart."""
    pictures = torch.eye(3)
    texts = torch.stack([pictures[0] + pictures[1], pictures[0] + pictures[1], pictures[2]])
    ranking = rank_both_ways(pictures, texts, [0, 1, 2])
    assert ranking.images.ranks().tolist() == ranking.texts.ranks().tolist() == [1.5, 1.5, 1]
    assert ranking.figures()["i2t_R@1"] == pytest.approx((0.5 + 0.5 + 1) / 3)


def test_folds_are_averaged():
    pictures, texts, image_of = random_embeddings(60)
    parts = [
        plain_figures(pictures[first : first + 20], texts[first * 5 : first * 5 + 100], image_of[:100].numpy())
        for first in (0, 20, 40)
    ]
    expected = {name: np.mean([part[name] for part in parts]) for name in parts[0]}
    assert rank_folds(pictures, texts, image_of, 3) == pytest.approx(expected)
    whole = rank_both_ways(pictures, texts, image_of).figures()
    assert expected["t2i_R@1"] > whole["t2i_R@1"]  # fewer to choose from
    for folds in (1, 7):
        with pytest.raises(EvaluationError, match=f"60 pictures make no {folds} folds"):
            rank_folds(pictures, texts, image_of, folds)


@pytest.mark.parametrize(
    ("images", "texts", "image_of", "message"),
    [
        (torch.ones(2, 3), torch.ones(2, 4), [0, 1], "give embeddings of one space"),
        (torch.ones(2, 3), torch.ones(3, 3), [0, 1], "3 captions of .3,., 2 of them with a picture"),
        (torch.ones(3, 3), torch.ones(2, 3), [0, 2], "1 of 3 pictures have no caption"),
        (torch.ones(1, 3), torch.ones(2, 3), [0, 1], "or a caption has no picture"),
        (torch.ones(2, 3), torch.tensor([[1.0], [torch.nan]]).expand(2, 3), [0, 1], "1 caption embeddings.*at 1,"),
    ],
)
def test_what_cannot_be_ranked_is_refused(images, texts, image_of, message: str):
    with pytest.raises(EvaluationError, match=message):
        rank_both_ways(images, texts, image_of)
