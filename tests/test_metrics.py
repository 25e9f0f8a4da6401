import pytest
import torch

from modeling_vlkd.trainers.metrics import balanced_exact_match, exact_match, retrieval_recall, word_f1


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
    assert retrieval_recall(queries, candidates) == 1.0
    assert retrieval_recall(queries, candidates.roll(1, dims=0)) == 0.0
    assert retrieval_recall(queries, candidates.roll(1, dims=0), k=3) == 1.0


def test_retrieval_takes_any_relevant_candidate():
    queries = candidates = torch.eye(2)
    assert retrieval_recall(queries, candidates.flip(0), relevant=torch.ones(2, 2, dtype=torch.bool)) == 1.0


def test_word_f1_is_of_the_nearest_reference():
    assert word_f1("A red circle.", ["a blue box", "a red circle"]) == 1.0
    assert word_f1("a a red", ["a red circle"]) == pytest.approx(2 / 3)  # two words of three, both ways
    assert word_f1("", ["a red circle"]) == word_f1("green", ["a red circle"]) == word_f1("green", []) == 0.0
