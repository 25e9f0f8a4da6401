"""CIDEr-D of our own against pycocoevalcap's, and the file of document frequencies."""

import random

import numpy as np
import pytest
from pycocoevalcap.cider.cider import Cider

from modeling_vlkd.evaluation.cider import DocumentFrequencies, NGrams, cider_d, count_once
from modeling_vlkd.evaluation.errors import EvaluationError


WORDS = [
    "a",
    "the",
    "dog",
    "cat",
    "runs",
    "sits",
    "on",
    "in",
    "red",
    "blue",
    "grass",
    "snow",
    "man",
    "boy",
    "with",
    "ball",
]


def captions(count: int, rng: random.Random) -> list[str]:
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 14))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_the_official_ones(seed: int):
    rng = random.Random(seed)
    references = [captions(rng.randint(1, 5), rng) for _ in range(30)]
    said = captions(30, rng)
    said[:4] = ["", references[1][0], "dog", "zebra zebra unheard of"]  # empty, exact, one word, unknown words
    _, expected = Cider().compute_score(
        dict(enumerate(references)), {number: [text] for number, text in enumerate(said)}
    )
    found = cider_d(said, references, range(30), DocumentFrequencies.of(references))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert found[1] > 0.5  # else all of them might be 0


def test_several_captions_of_some_pictures_are_scored_as_alone():
    rng = random.Random(3)
    references = [captions(4, rng) for _ in range(20)]
    frequencies = DocumentFrequencies.of(references)
    said, pictures = captions(6, rng), [2, 0, 2, 1, 2, 0]
    together = cider_d(said, references[:3], pictures, frequencies)
    alone = [cider_d([text], [references[picture]], [0], frequencies)[0] for text, picture in zip(said, pictures)]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_ngrams_do_not_reach_from_one_text_into_the_next():
    found = NGrams.of(["a b a", "", "b"])
    counted = sorted(zip(found.text.tolist(), found.order.tolist(), found.count.tolist()))
    assert counted == [(0, 0, 1.0), (0, 0, 2.0), (0, 1, 1.0), (0, 1, 1.0), (0, 2, 1.0), (2, 0, 1.0)]
    assert not len(NGrams.of(["", ""]).key)


def test_frequencies_are_counted_once_a_run(tmp_path):
    references = [["a dog", "the dog runs"], ["a cat"]]
    path = tmp_path / "run" / "document_frequencies.npz"
    counted = count_once(path, references)
    np.testing.assert_allclose(counted.idf(NGrams.of(["a"]).key), [0.0])  # in both pictures
    np.testing.assert_allclose(counted.idf(NGrams.of(["dog"]).key), [np.log(2)])  # in one, though twice
    np.testing.assert_allclose(counted.idf(NGrams.of(["never"]).key), [np.log(2)])
    before = path.read_bytes()
    again = count_once(path, references)
    assert (again.keys == counted.keys).all()
    assert (again.counts == counted.counts).all()
    assert again.pictures == 2
    with pytest.raises(EvaluationError, match="counted over the references of 2 other pictures"):
        count_once(path, [["a dog"], ["a cat"]])
    assert path.read_bytes() == before
    path.write_bytes(b"text")
    with pytest.raises(EvaluationError, match="holds no document frequencies"):
        count_once(path, references)


def test_no_references_are_refused():
    with pytest.raises(EvaluationError, match="no references"):
        DocumentFrequencies.of([])
