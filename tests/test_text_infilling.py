import doctest
import math
import time

import numpy as np
import pytest
from tiny_training import tiny_tokenizer
from transformers import CLIPTokenizer

from modeling_vlkd.evaluation import text_infilling
from modeling_vlkd.evaluation.text_infilling import TextInfilling, draw_spans, poisson_quantiles


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def infill(tokenizer):
    return TextInfilling(tokenizer)


def encode(tokenizer, texts):
    return tokenizer(texts, padding=True, return_tensors="np").input_ids


def words_of(text):
    return text.replace("<mask>", " ").replace("<s>", "").replace("</s>", "").replace("<pad>", "").split()


LONG = " ".join(["a red circle and a blue box"] * 6)  # 42 words, several of them of more than one token


def test_fifteen_percent_of_the_words_go_rounded_up():
    words = np.array([0, 1, 6, 7, 20, 100])
    first, length, _ = draw_spans(words, np.arange(6), mask_ratio=0.15, mean_span=3.0)
    assert length.sum(axis=1).tolist() == [math.ceil(0.15 * count) for count in words]
    assert (first[length > 0] < np.repeat(words, (length > 0).sum(axis=1))).all()


def test_span_lengths_are_poisson():
    uniform = (np.arange(100_000) + 0.5) / 100_000
    counts = np.bincount(poisson_quantiles(uniform, mean=3.0), minlength=12)[:12] / len(uniform)
    expected = [math.exp(-3) * 3**count / math.factorial(count) for count in range(12)]
    np.testing.assert_allclose(counts, expected, atol=2e-5)


def test_spans_that_are_not_cut_keep_poisson_lengths_and_one_in_twenty_is_an_insertion():
    rows = 400
    _, length, insertions = draw_spans(np.full(rows, 2000), np.arange(rows), 0.15, 3.0)
    spans = (length > 0).sum() + insertions.sum()
    assert insertions.sum() / spans == pytest.approx(math.exp(-3), abs=0.003)
    assert length.sum() / spans == pytest.approx(3.0, abs=0.04)


def test_first_words_of_spans_are_uniform():
    first, length, _ = draw_spans(np.full(20_000, 10), np.arange(20_000), 0.1, 3.0)
    counts = np.bincount(first[length > 0], minlength=10)
    assert counts.sum() == 20_000  # a budget of one word: one span of one word a row
    np.testing.assert_allclose(counts / 20_000, 0.1, atol=0.01)


def test_one_mask_stands_for_each_span_and_the_other_words_stay_in_order(tokenizer, infill):
    texts = tokenizer.batch_decode(infill(np.repeat(encode(tokenizer, [LONG]), 500, axis=0), np.arange(500)))
    words, masks = LONG.split(), []
    for text in texts:
        kept = iter(words)
        assert all(word in kept for word in words_of(text))  # a subsequence: whole words, none torn, none moved
        assert 0 < len(words) - len(words_of(text)) <= math.ceil(0.15 * len(words))
        masks.append(text.count("<mask>"))
    # 7 words of 42 in spans of 3 on average, the last one cut
    assert 2.4 < np.mean(masks) < 3.6


def test_special_tokens_and_padding_stay(tokenizer, infill):
    ids = encode(tokenizer, [LONG, "a red box"])
    corrupted = infill(np.repeat(ids, 300, axis=0), np.arange(600))
    assert (corrupted[:, 0] == tokenizer.bos_token_id).all()
    for row in corrupted:
        length = (row != tokenizer.pad_token_id).sum()
        assert (row[length:] == tokenizer.pad_token_id).all()
        assert row[length - 1] == tokenizer.eos_token_id
        assert (row == tokenizer.eos_token_id).sum() == (row == tokenizer.bos_token_id).sum() == 1


def test_any_word_is_masked_and_all_but_the_first_equally_often(tokenizer, infill):
    words = ["red", "blue", "green", "teal", "circle", "box", "triangle", "what"]
    ids = np.repeat(encode(tokenizer, [" ".join(words)]), 8000, axis=0)
    texts = [words_of(text) for text in tokenizer.batch_decode(infill(ids, np.arange(8000)))]
    lost = [sum(word not in text for text in texts) / len(texts) for word in words]
    # The budget is 2 of 8 words, mostly one span; only a span that begins with it takes the first word.
    assert lost[0] == pytest.approx(1 / 8, abs=0.03)
    np.testing.assert_allclose(lost[1:], 2 / 8, atol=0.02)


def test_an_insertion_takes_no_word(tokenizer, infill):
    ids = encode(tokenizer, ["a red box"])
    kept, gaps = ids != tokenizer.pad_token_id, ids != tokenizer.bos_token_id
    for seed in range(20):
        text = tokenizer.batch_decode(infill._insert_masks(ids, kept, gaps, np.array([2]), np.array([seed])))[0]
        assert words_of(text) == ["a", "red", "box"]
        assert text.count("<mask>") == 2
        assert text.startswith("<s>")
        assert text.endswith("</s>")


def test_a_row_depends_on_its_seed_and_words_alone(tokenizer, infill):
    alone = infill(encode(tokenizer, ["a red box and a circle"]), np.array([7]))[0]
    ids = encode(tokenizer, [LONG, "a red box and a circle"])
    beside = infill(ids, np.array([3, 7]))[1]
    assert beside[: len(alone)].tolist() == alone.tolist()
    assert (beside[len(alone) :] == tokenizer.pad_token_id).all()
    assert infill(ids, np.array([4, 8])).tolist() != infill(ids, np.array([3, 7])).tolist()


def test_what_was_taken_is_told(tokenizer, infill):
    """Tokens that stay are those of the corrupted text without its masks; words go as a whole."""
    ids = np.repeat(encode(tokenizer, [LONG, "a red box"]), 50, axis=0)
    corruption = infill.corrupt(ids, np.arange(100))
    assert corruption.input_ids.tolist() == infill(ids, np.arange(100)).tolist()
    unkept = [tokenizer.mask_token_id, tokenizer.pad_token_id]
    for row, clean, taken, word in zip(corruption.input_ids, ids, corruption.taken, corruption.word):
        kept = clean[~taken & (clean != tokenizer.pad_token_id)]
        assert row[~np.isin(row, unkept)].tolist() == kept.tolist()
        words = 42 if (word >= 0).sum() > 10 else 3
        assert set(word.tolist()) == {-1, *range(words)}
        assert 0 < len(set(word[taken])) <= math.ceil(0.15 * words)
        assert not set(word[taken]) & set(word[~taken])
    assert tokenizer.decode(ids[0][corruption.word[0] == 5]).strip() == "blue"


def test_an_empty_text_stays_empty(tokenizer, infill):
    ids = np.array([[tokenizer.bos_token_id, tokenizer.eos_token_id]])
    assert infill(ids, np.array([0])).tolist() == ids.tolist()


def test_infilling_a_batch_takes_milliseconds(tokenizer, infill):
    ids = np.repeat(encode(tokenizer, [LONG]), 64, axis=0)
    start = time.perf_counter()
    for step in range(10):
        infill(ids, np.arange(64) + 64 * step)
    assert (time.perf_counter() - start) / 10 < 0.05


def test_a_tokenizer_without_word_marks_is_refused():
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "<mask>": 2, "a": 3, "a</w>": 4}
    clip = CLIPTokenizer(vocab=vocabulary, merges=[], mask_token="<mask>")
    with pytest.raises(ValueError, match="byte-level BPE"):
        TextInfilling(clip)


def test_the_example_in_the_docstring_is_true(tokenizer):
    names = {"tokenizer": tokenizer, "np": np, "TextInfilling": TextInfilling}
    [example] = doctest.DocTestFinder(recurse=False).find(TextInfilling, "TextInfilling", globs=names)
    assert example.examples
    assert not doctest.DocTestRunner().run(example).failed


def test_the_worked_row_of_the_docstring_is_true(monkeypatch):
    """Its span and its insertion in place of drawn ones; all gaps are met in some seed."""
    tokenizer = tiny_tokenizer()
    ids = tokenizer.convert_tokens_to_ids(["<s>", "a", "Ġred", "Ġcircle", "e", "Ġbox", "</s>", "<pad>"])
    assert tokenizer.unk_token_id not in ids
    span = (np.array([[1]]), np.array([[2]]), np.array([1]))  # first word, words, insertions
    monkeypatch.setattr(text_infilling, "draw_spans", lambda *args: span)
    infill = TextInfilling(tokenizer)
    opens, inside = infill._mark_words(*span[:2], np.array([4]))
    assert opens.tolist() == [[False, True, False, False, False]]
    assert inside.tolist() == [[False, False, True, False, False]]
    found = {tokenizer.decode(infill(np.array([ids]), np.array([seed]))[0]) for seed in range(50)}
    words = ["<s>", "a", "<mask>", " box", "</s>"]
    assert found == {"".join([*words[:place], "<mask>", *words[place:]]) for place in (1, 2, 3, 4)}
