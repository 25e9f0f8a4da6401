"""GLUE as a benchmark: rows, figures and the examples one by one."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modeling_vlkd import VLKDForSequenceClassification
from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.glue import GlueBenchmark
from modeling_vlkd.evaluation.glue_files import GlueExample
from modeling_vlkd.evaluation.running import run_benchmark
from modeling_vlkd.evaluation.text_models import ClassifierAdapter


EXAMPLES = [
    GlueExample(number, ("a red box" * (4 - number), f"is it {word}?"), label)
    for number, (word, label) in enumerate([("red", 0), ("blue", 1), ("a box", 0), ("a circle", 1)])
]


class Reader:
    """Finds that the color or shape is there if it stands in the other text, but knows no box."""

    labels = ("LABEL_0", "LABEL_1")

    def classify(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Tensor:
        words = [pair.removeprefix("is it ").removesuffix("?") for pair in pairs or []]
        found = [word in text and word != "a box" for word, text in zip(words, texts)]
        return torch.tensor([[1.0, -1.0] if each else [-0.5, 0.5] for each in found])

    def overlong(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[bool]:
        return [len(text) > 30 for text in texts]


def test_figures_and_examples_are_those_of_the_predictions(tmp_path: Path):
    benchmark = GlueBenchmark("rte", EXAMPLES)
    rows = run_benchmark(benchmark, Reader(), tmp_path, batch_size=3)
    assert rows[0] == {"id": 0, "scores": [1.0, -1.0], "truncated": True}
    assert rows[3] == {"id": 3, "scores": [-0.5, 0.5]}
    report = benchmark.report(rows)
    assert report.overall == {"accuracy": 0.75}
    low, high = report.intervals["accuracy"]
    assert 0 <= low < 0.75 < high <= 1
    assert report.facts["truncated"] == 1
    assert [each.score for each in report.scored] == [1, 1, 0, 1]
    wrong = report.scored[2]
    assert (wrong.id, wrong.said, wrong.truth) == (2, "not_entailment", ["entailment"])
    assert wrong.asked == "a red boxa red box | is it a box?"
    json.dumps(report.as_dict())
    assert report.tables()[0].row_count == 1


def test_examples_of_like_lengths_are_neighbors():
    assert list(GlueBenchmark("rte", EXAMPLES).order()) == [3, 2, 1, 0]


def test_stsb_scores_by_correlation_and_examples_by_distance():
    examples = [GlueExample(number, ("a", "b"), float(number)) for number in range(4)]
    benchmark = GlueBenchmark("stsb", examples)
    rows = [{"scores": [value]} for value in (0.0, 2.0, 4.0, 6.0)]
    report = benchmark.report(rows)
    assert report.overall == {"pearson": pytest.approx(1), "spearmanr": pytest.approx(1)}
    assert [each.score for each in report.scored] == pytest.approx([1, 0.8, 0.6, 0.4])
    assert not report.intervals


def test_a_test_split_is_submitted_and_not_scored(tmp_path: Path):
    benchmark = GlueBenchmark("rte", [GlueExample(each.index, each.texts) for each in EXAMPLES])
    rows = benchmark.predict(Reader(), range(4))
    path = benchmark.submit(rows, tmp_path)
    assert path.read_text().splitlines() == ["index\tprediction", "0\tentailment"] + [
        f"{number}\tnot_entailment" for number in (1, 2, 3)
    ]
    assert benchmark.report(rows).overall == {}


def test_a_vlkd_classifies(make_model, tokenizer, tmp_path: Path):
    model = make_model(model_class=VLKDForSequenceClassification)
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\na red box\t1\na blue circle\t0\n")
    benchmark = GlueBenchmark.read("sst2", tmp_path / "dev.tsv")
    adapter = ClassifierAdapter(model, tokenizer)
    together = benchmark.predict(adapter, [0, 1])
    [second] = benchmark.predict(adapter, [1])
    assert second["scores"] == pytest.approx(together[1]["scores"], rel=1e-4)
    assert set(benchmark.report(together).overall) == {"accuracy"}


def test_bad_examples_are_told(make_model, tokenizer):
    with pytest.raises(EvaluationError, match="Expected examples of RTE, got none"):
        GlueBenchmark("rte", [])
    with pytest.raises(EvaluationError, match="1 of 5 examples of RTE have no label"):
        GlueBenchmark("rte", [*EXAMPLES, GlueExample(9, ("a", "b"))])
    model = make_model(model_class=VLKDForSequenceClassification)  # two labels
    benchmark = GlueBenchmark("mnli", EXAMPLES)
    with pytest.raises(EvaluationError, match="those of the model are LABEL_0, LABEL_1; finetune it on this task"):
        benchmark.predict(ClassifierAdapter(model, tokenizer), range(4))
    with pytest.raises(EvaluationError, match=r"needs 3 outputs .* got .*\(4, 2\); finetune the model on this task"):
        benchmark.report([{"scores": [0.0, 1.0]}] * 4)


def test_the_names_of_the_outputs_say_which_label_each_is(make_model, tokenizer):
    """Published classifiers of MNLI begin with contradiction, GLUE with entailment."""
    names = {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}
    model = make_model(model_class=VLKDForSequenceClassification, id2label=names)
    adapter, benchmark = ClassifierAdapter(model, tokenizer), GlueBenchmark("mnli", EXAMPLES)
    outputs = adapter.classify(*([each.texts[n] for each in EXAMPLES] for n in (0, 1)))
    rows = benchmark.predict(adapter, range(4))
    assert [row["scores"] for row in rows] == outputs.flip(1).tolist()
    assert outputs.std(dim=1).min() > 1e-4
