"""Metrics of captions: values known on paper, an independent CIDEr-D, and the two tokenizers."""

import math
import runpy
import sys
from collections import Counter

import pytest

from modeling_vlkd.evaluation.caption_metrics import meteor_scores, score_captions, score_groups, start_meteor
from modeling_vlkd.evaluation.caption_tokenizers import (
    JAVA_TOKENIZER,
    PYTHON_TOKENIZER,
    choose_tokenizer,
    java_runs,
    tokenize_texts,
)
from modeling_vlkd.evaluation.errors import EvaluationError


TOKENIZERS = [PYTHON_TOKENIZER, JAVA_TOKENIZER] if java_runs() else [PYTHON_TOKENIZER]
OFFICIAL = ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"]
CAPTIONS = {
    7: "a dog runs on the beach",
    3: "two men ride a horse",
    12: "a cat sleeps",
    5: "a red bus stops in front of a house",
}
REFERENCES = {
    3: ["two men are on a horse", "a horse with two riders", "men ride a horse"],
    5: ["a red bus in front of a house", "the bus stops", "a house and a bus"],
    7: ["a dog runs along the beach", "the dog is on the beach"],
    12: ["a cat sleeps on a bed", "a sleeping cat"],
}


def score(captions, references):
    return score_captions(captions, references, PYTHON_TOKENIZER)


def test_captions_equal_to_their_references_have_the_highest_scores():
    captions = {1: "a dog runs on sand", 2: "two old men ride horses"}
    scores = score(captions, {image: [text] for image, text in captions.items()})
    assert list(scores.overall) == OFFICIAL
    assert scores.overall == pytest.approx(dict.fromkeys(OFFICIAL, 1.0) | {"CIDEr": 10.0})
    assert scores.each == {image: pytest.approx(scores.overall) for image in captions}
    assert scores.tokenizer == PYTHON_TOKENIZER


def test_captions_without_a_word_of_their_references_have_none():
    scores = score({1: "red", 2: ""}, {1: ["a dog runs"], 2: ["two men"]})
    assert scores.overall == pytest.approx(dict.fromkeys(OFFICIAL, 0.0), abs=1e-4)


def test_a_caption_of_half_the_words_is_punished_for_its_length():
    """BLEU by exp(1 - 8 / 4); ROUGE-L from precision 1 and recall 1/2 with beta 1.2."""
    overall = score({1: "a b c d"}, {1: ["a b c d e f g h"]}).overall
    for name in OFFICIAL[:4]:
        assert overall[name] == pytest.approx(math.exp(-1), abs=1e-6)
    assert overall["ROUGE_L"] == pytest.approx((1 + 1.44) * 0.5 / (0.5 + 1.44))


def ngrams(text: str, n: int) -> Counter:
    words = text.split()
    return Counter(tuple(words[first : first + n]) for first in range(len(words) - n + 1))


def cider_d(captions: dict[int, str], references: dict[int, list[str]]) -> dict[int, float]:
    """CIDEr-D of each caption, straight from its definition (arXiv:1411.5726, section 7), sigma 6."""
    scores = dict.fromkeys(captions, 0.0)
    for image, caption in captions.items():
        for n in range(1, 5):
            seen = Counter(
                gram for texts in references.values() for gram in set().union(*(ngrams(t, n) for t in texts))
            )

            def weights(text, n=n, seen=seen):
                return {g: count * math.log(len(captions) / max(seen[g], 1)) for g, count in ngrams(text, n).items()}

            said = weights(caption)
            for reference in references[image]:
                known = weights(reference)
                norms = math.hypot(*said.values()) * math.hypot(*known.values())
                shared = sum(min(weight, known[gram]) * known[gram] for gram, weight in said.items() if gram in known)
                penalty = math.exp(-((len(caption.split()) - len(reference.split())) ** 2) / 72)
                scores[image] += 10 / 4 * penalty * (shared / norms if norms else 0) / len(references[image])
    return scores


def test_cider_is_that_of_its_definition():
    expected = cider_d(CAPTIONS, REFERENCES)
    scores = score(CAPTIONS, REFERENCES)
    assert {image: each["CIDEr"] for image, each in scores.each.items()} == pytest.approx(expected)
    assert scores.overall["CIDEr"] == pytest.approx(sum(expected.values()) / 4)
    assert min(expected.values()) > 0.1  # not an equality of nothings


def test_each_group_is_a_corpus_of_its_own():
    groups = score_groups(CAPTIONS, REFERENCES, {"some": [7, 3], "all": [12, 7, 3, 5]}, PYTHON_TOKENIZER)
    for name, images in {"some": [7, 3], "all": [12, 7, 3, 5]}.items():
        alone = score({i: CAPTIONS[i] for i in images}, {i: REFERENCES[i] for i in images})
        assert groups[name] == alone
        assert list(groups[name].each) == images


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_words_are_cut_as_in_the_penn_treebank(tokenizer):
    texts = {
        "A Dog runs.": "a dog runs",
        "The man's hat isn't red, is it?": "the man 's hat is n't red is it",
        'a "red" bus: (old)': "a red bus -lrb- old -rrb-",  # the official list has -LRB- in upper case
        "...": "",
        "": "",
        " two\nlines\u2028and\tmore\r\n": "two lines and more",
        "a café, 5 o'clock": "a café 5 o'clock",
        "black-and-white & green": "black-and-white & green",
    }
    if tokenizer == JAVA_TOKENIZER:
        texts["1 1/2 cups"] = "1\xa01/2 cups"
    assert tokenize_texts(list(texts), tokenizer) == list(texts.values())


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_no_text_is_no_words(tokenizer):
    assert tokenize_texts([], tokenizer) == []


def fake_java(folder, monkeypatch, script: str):
    (folder / "java").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_without_java_words_are_cut_by_python(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert choose_tokenizer() == PYTHON_TOKENIZER
    assert score_captions({1: "a dog"}, {1: ["a dog"]}).tokenizer == PYTHON_TOKENIZER
    with pytest.raises(EvaluationError, match="needs Java on the PATH"):
        choose_tokenizer(JAVA_TOKENIZER)
    fake_java(tmp_path, monkeypatch, "exit 1")  # as /usr/bin/java of a Mac without Java
    assert choose_tokenizer() == PYTHON_TOKENIZER
    fake_java(tmp_path, monkeypatch, "exit 0")
    assert choose_tokenizer() == JAVA_TOKENIZER
    assert choose_tokenizer(PYTHON_TOKENIZER) == PYTHON_TOKENIZER
    with pytest.raises(EvaluationError, match="No tokenizer 'spaces'; choose "):
        choose_tokenizer("spaces")


def test_java_that_fails_is_no_score(monkeypatch, tmp_path):
    fake_java(tmp_path, monkeypatch, '[ "$1" = -version ] && exit 0\necho "Error: no heap" >&2; echo more >&2; exit 3')
    with pytest.raises(EvaluationError, match=r"gave 0 lines for 2 and said: Error: no heap; mend Java"):
        score_captions({1: "a dog"}, {1: ["a dog"]})
    with pytest.raises(EvaluationError, match="METEOR's Java program failed; give it 2 GB of memory"):
        meteor_scores(start_meteor(), {1: ["a dog"]}, {1: ["a dog"]})


@pytest.mark.parametrize(
    ("captions", "references", "message"),
    [
        ({}, {}, "There are no captions to score."),
        ({1: "a", 2: "b"}, {1: ["a"]}, "There are no references of image 2;"),
        ({1: "a", 2: "b"}, {1: ["a"], 2: []}, "There are no references of image 2;"),
        ({1: "a"}, {1: ["a"], 2: ["b"], 3: ["c"]}, "There are no captions of images 2, 3;"),
        ({1: "a", 2: "b"}, {1: ["a"], 2: ["...", "!"]}, "There are no words in the references of image 2;"),
    ],
)
def test_images_have_to_be_the_same(captions, references, message):
    with pytest.raises(EvaluationError) as caught:
        score(captions, references)
    assert str(caught.value).startswith(message)


def forget(package: str, monkeypatch):
    """Have the next import of a package read its files."""
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("package", ["pycocoevalcap", "nltk"])
def test_a_missing_package_is_named_with_its_remedy(package, monkeypatch):
    forget(package, monkeypatch)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EvaluationError) as caught:
        score(CAPTIONS, REFERENCES)
    install = 'pip install "modeling_vlkd[evaluate]"'
    assert str(caught.value) == f"Scoring captions needs {package}, which is not installed; {install}"


def test_packages_are_imported_when_they_are_needed(monkeypatch):
    for package in ("pycocoevalcap", "nltk"):
        forget(package, monkeypatch)
        monkeypatch.setitem(sys.modules, package, None)
    for name in ("caption_tokenizers", "caption_metrics"):
        monkeypatch.delitem(sys.modules, f"modeling_vlkd.evaluation.{name}")
        runpy.run_module(f"modeling_vlkd.evaluation.{name}")


def test_pycocotools_is_never_imported(monkeypatch):
    forget("pycocoevalcap", monkeypatch)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    assert score(CAPTIONS, REFERENCES).overall["CIDEr"] > 0


@pytest.mark.slow
def test_meteor_comes_with_java():
    """A caption equal to a reference has 1; the program takes seconds to read its dictionaries."""
    if not java_runs():
        pytest.skip("METEOR is a Java program")
    scores = score_captions({1: "a dog runs", 2: "", 3: "..."}, {1: ["A dog runs."], 2: ["two men"], 3: ["a ||| b"]})
    assert scores.tokenizer == JAVA_TOKENIZER
    assert [each["METEOR"] for each in scores.each.values()] == [1.0, 0.0, 0.0]
    assert list(scores.overall) == [*OFFICIAL, "METEOR"]
