"""Mask filling against BART's own loss, closed forms, and the BART that a VLKD came from."""

import gzip
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import BartConfig, BartForConditionalGeneration, CLIPTokenizer

from modeling_vlkd import VLKDForConditionalGeneration
from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.infilling import (
    TOKENS_AT_ONCE,
    InfillingBenchmark,
    Seq2SeqInfiller,
    TokenScores,
    cut_batches,
    load_infiller,
    pad_ids,
    read_lines,
    score_line,
)
from modeling_vlkd.evaluation.running import run_benchmark


LINES = ["A picture of a red circle.", "what color is the shape?", "is there a circle? Answer: yes.", "a box"]
LINES += ["a red circle and a blue box and a green triangle beside a teal box", "Résumé: 東京."]


@pytest.fixture
def benchmark(tmp_path: Path) -> InfillingBenchmark:
    (tmp_path / "text.txt").write_text("\n".join(["", *LINES[:3], "  ", *LINES[3:], ""]), encoding="utf-8")
    return InfillingBenchmark.from_file(tmp_path / "text.txt")


@pytest.fixture(scope="module")
def bart(bart_folder: Path) -> BartForConditionalGeneration:
    return BartForConditionalGeneration.from_pretrained(bart_folder)


@torch.no_grad()
def test_sums_are_those_of_barts_own_loss_line_by_line(benchmark, bart, tokenizer, tmp_path: Path):
    """A batch of all lines, against each line alone with the corrupted text as it was read."""
    rows = run_benchmark(benchmark, Seq2SeqInfiller(bart, tokenizer), tmp_path / "run")
    assert benchmark.ids == [2, 3, 4, 6, 7, 8]
    for row, line in zip(rows, LINES, strict=True):
        target = tokenizer(line, return_tensors="pt").input_ids
        source = tokenizer(row["read"], return_tensors="pt").input_ids
        output = bart(input_ids=source, labels=target)
        assert row["tokens"] == target.shape[1]
        assert row["loss_sum"] == pytest.approx(output.loss.item() * row["tokens"], rel=1e-4)
        assert 0 < row["masked"] <= math.ceil(0.15 * len(line.split()))
        assert 0 < row["masked_tokens"] < row["tokens"]
        assert row["masked_loss_sum"] < row["loss_sum"]
    report = benchmark.report(rows)
    tokens = sum(row["tokens"] for row in rows)
    assert report.overall["loss"] == pytest.approx(sum(row["loss_sum"] for row in rows) / tokens)
    assert report.overall["perplexity"] == pytest.approx(math.exp(report.overall["loss"]))
    low, high = report.intervals["loss"]
    assert low < report.overall["loss"] < high
    assert (report.facts["tokens"], report.facts["lines_cut"], report.facts["mask_ratio"]) == (tokens, 0, 0.15)
    assert [each.truth for each in report.scored] == [[line] for line in LINES]
    json.dumps(report.as_dict())


def test_a_model_that_knows_nothing_loses_the_log_of_the_vocabulary(benchmark, tokenizer):
    class Uniform(nn.Module):
        """The same logit for every token; the first one is the choice, and right nowhere."""

        config = BartConfig(max_position_embeddings=64)
        device = torch.device("cpu")

        def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, return_dict: bool):
            logits = torch.zeros(*labels.shape, len(tokenizer))
            return type("Output", (), {"logits": logits})

    overall = benchmark.report(benchmark.predict(Seq2SeqInfiller(Uniform(), tokenizer), range(6))).overall
    assert overall["loss"] == overall["masked_loss"] == pytest.approx(math.log(len(tokenizer)))
    assert overall["perplexity"] == pytest.approx(len(tokenizer), rel=1e-4)
    assert overall["accuracy"] == 0


class Oracle:
    """Writes every target as it is, but for the tokens that are given as forgotten."""

    max_length = 64

    def __init__(self, tokenizer, forgotten: str = ""):
        self.tokenizer = tokenizer
        self.forgotten = set(tokenizer(forgotten, add_special_tokens=False).input_ids)

    def score(self, sources, targets) -> list[TokenScores]:
        self.sources = sources
        choices = [np.array([0 if token in self.forgotten else token for token in target]) for target in targets]
        return [TokenScores(np.zeros(len(target)), choice) for target, choice in zip(targets, choices)]


def test_a_model_that_knows_all_restores_all(benchmark, tokenizer):
    oracle = Oracle(tokenizer)
    rows = benchmark.predict(oracle, range(6))
    report = benchmark.report(rows)
    assert report.overall == {"loss": 0, "perplexity": 1, "masked_loss": 0, "accuracy": 1}
    assert [each.said for each in report.scored] == LINES
    assert all("<mask>" in each.asked or each.score is None for each in report.scored)
    assert [tokenizer.decode(source[1:-1]) for source in oracle.sources] == [row["read"] for row in rows]


def test_words_are_right_if_all_of_their_tokens_are_chosen():
    """Of a word of two tokens one is wrong; a wrong choice at a token that was not masked does not count."""
    target, word = np.array([0, 11, 12, 13, 14, 2]), np.array([-1, 0, 1, 1, 2, -1])
    taken = np.array([False, False, True, True, True, False])
    losses = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    row = score_line(target, taken, word, TokenScores(losses, np.array([0, 99, 12, 99, 14, 2])))
    assert row == {
        **{"loss_sum": 63, "tokens": 6, "masked_loss_sum": 28, "masked_tokens": 3},
        **{"right": 1, "masked": 2},
    }


def test_figures_are_ratios_of_sums(benchmark):
    rows = [{"cut": False, "read": "", "said": "", "masked_loss_sum": 3.0, "masked_tokens": 2}] * 6
    rows = [row | {"loss_sum": 2.0 * n, "tokens": n, "right": 1, "masked": n} for n, row in enumerate(rows, 1)]
    report = benchmark.report(rows)
    assert report.overall == pytest.approx(
        {"loss": 2, "perplexity": math.exp(2), "masked_loss": 1.5, "accuracy": 6 / 21}
    )
    assert report.intervals["loss"] == pytest.approx((2, 2))
    assert report.intervals["accuracy"][0] < 6 / 21 < report.intervals["accuracy"][1]
    assert [each.score for each in report.scored] == pytest.approx([1 / n for n in range(1, 7)])


def test_a_vlkd_that_was_not_trained_infills_as_its_bart_unless_text_crosses_the_bridge(
    benchmark, bart, clip_folder: Path, bart_folder: Path, tokenizer
):
    """The bridge is narrower than BART here, so what crosses it is not the same."""
    expected = benchmark.predict(Seq2SeqInfiller(bart, tokenizer), range(6))
    for bridged in (False, True):
        model = VLKDForConditionalGeneration.from_vision_text_pretrained(
            clip_folder, bart_folder, bridge_text_only=bridged
        )
        rows = benchmark.predict(Seq2SeqInfiller(model, tokenizer), range(6))
        assert [row["read"] for row in rows] == [row["read"] for row in expected]
        losses = [row["loss_sum"] for row in rows]
        alike = losses == pytest.approx([row["loss_sum"] for row in expected], rel=1e-4)
        assert alike is not bridged


def test_a_vlkd_and_a_bart_are_loaded_by_name_and_others_refused(
    benchmark, bart, bart_folder: Path, clip_folder: Path, tiny_checkpoint: Path, tmp_path: Path
):
    ours = load_infiller(str(tiny_checkpoint), "cpu")
    assert type(ours.model) is VLKDForConditionalGeneration
    theirs = load_infiller(str(bart_folder), "cpu")
    assert benchmark.predict(theirs, [0]) == benchmark.predict(Seq2SeqInfiller(bart, theirs.tokenizer), [0])
    [row] = benchmark.predict(ours, [0])
    assert row["read"] == benchmark.predict(theirs, [0])[0]["read"]  # the same words are masked
    with pytest.raises(EvaluationError, match="holds a model of type 'clip'; give one of type vlkd or bart or mbart"):
        load_infiller(str(clip_folder))
    with pytest.raises(EvaluationError, match="There is no folder"):
        load_infiller(str(tmp_path / "nowhere"))


def test_a_row_depends_on_its_line_and_the_seed_alone(benchmark, bart, tokenizer):
    model = Seq2SeqInfiller(bart, tokenizer)
    order = benchmark.order()
    assert [len(benchmark.lines[benchmark.ids[place]]) for place in order] == sorted(map(len, LINES), reverse=True)
    together = dict(zip(order, benchmark.predict(model, order)))
    for place in order:
        [alone] = benchmark.predict(model, [place])
        assert alone == {
            name: pytest.approx(value, rel=1e-4) if isinstance(value, float) else value
            for name, value in together[place].items()
        }
    other = InfillingBenchmark(benchmark.lines, seed=1).predict(model, order)
    assert [row["read"] for row in other] != [together[place]["read"] for place in order]
    heavy = InfillingBenchmark(benchmark.lines, mask_ratio=0.9).predict(model, order)
    assert sum(row["masked"] for row in heavy) > 2 * sum(row["masked"] for row in together.values())


def test_a_line_that_is_too_long_is_cut_and_counted(bart, tokenizer):
    """The model has 64 positions, of which 8 are left for masks; the end of the text stays its end."""
    benchmark = InfillingBenchmark({1: "a red box", 2: "a red box " * 40})
    model = Seq2SeqInfiller(bart, tokenizer)
    assert model.max_length == 64
    rows = benchmark.predict(model, [0, 1])
    assert [row["cut"] for row in rows] == [False, True]
    assert rows[1]["tokens"] == 56
    assert benchmark.report(rows).facts["lines_cut"] == 1


@pytest.mark.parametrize("lengths", [[5], [4096, 1, 1], [1000] * 9, [3000, 3000, 10, 10], list(range(900, 0, -7))])
def test_batches_hold_everything_once_and_no_more_than_fits(lengths: list[int]):
    batches = list(cut_batches(lengths))
    assert [place for first, last in batches for place in range(first, last)] == list(range(len(lengths)))
    for first, last in batches:
        assert last - first == 1 or max(lengths[first:last]) * (last - first) <= TOKENS_AT_ONCE
    for (first, last), _ in pairwise(batches):
        assert max(lengths[first : last + 1]) * (last + 1 - first) > TOKENS_AT_ONCE  # not one more would have fitted
    assert list(cut_batches([])) == []


def test_rows_are_padded_on_the_right():
    assert pad_ids([[1, 2, 3], [4]], 9).tolist() == [[1, 2, 3], [4, 9, 9]]


def test_files_may_be_gzipped_and_their_first_lines_taken(tmp_path: Path):
    text = "\ufeffone\r\n\n two \nthree\u2028still three\n"
    (tmp_path / "text.txt").write_bytes(text.encode())
    (tmp_path / "text.txt.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("text.txt", "text.txt.gz"):
        assert read_lines(tmp_path / name) == {1: "one", 3: "two", 4: "three\u2028still three"}
        assert read_lines(tmp_path / name, 2) == {1: "one", 3: "two"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", None, r"none.txt does not exist; give a text file, a text a line"),
        ("none.gz", None, r"none.gz does not exist"),
        ("text.txt", b" \n\n", "text.txt holds no text; give a text file"),
        ("text.txt", b"one\n\xff\n", "Line 2 of .*text.txt is not UTF-8"),
        ("text.gz", b"no gzip", "text.gz cannot be unpacked as text"),
        ("text.gz", gzip.compress(b"one\n" * 99)[:-9], "text.gz cannot be unpacked as text"),
        ("text.gz", gzip.compress(b"\xff"), "text.gz cannot be unpacked as text"),
    ],
)
def test_files_that_are_no_text_are_refused(tmp_path: Path, name: str, content: bytes | None, message: str):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(EvaluationError, match=message):
        InfillingBenchmark.from_file(tmp_path / name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": 0}, "Got a limit of 0 lines"),
        ({"mask_ratio": 0}, "Got a mask_ratio of 0 and a mean_span of 3.0; give a share above 0"),
        ({"mask_ratio": 1.5}, "Got a mask_ratio of 1.5"),
        ({"mean_span": -1}, "a mean_span of -1; give"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, settings: dict, message: str):
    (tmp_path / "text.txt").write_text("a box\n")
    with pytest.raises(EvaluationError, match=message):
        InfillingBenchmark.from_file(tmp_path / "text.txt", **settings)


def test_a_tokenizer_whose_words_cannot_be_told_apart_is_refused(benchmark):
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "<mask>": 2, "a": 3, "a</w>": 4}
    model = Oracle(CLIPTokenizer(vocab=vocabulary, merges=[], mask_token="<mask>"))
    with pytest.raises(EvaluationError, match="byte-level BPE"):
        benchmark.predict(model, [0])
