"""Summaries: ROUGE by its definition, documents from files, and the settings of BART for XSum."""

import json
from collections import Counter
from pathlib import Path

import datasets
import pytest

from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.running import run_benchmark
from modeling_vlkd.evaluation.summarization import (
    GENERATION,
    Document,
    SummarizationBenchmark,
    read_documents,
    score_summaries,
)
from modeling_vlkd.evaluation.text_models import WriterAdapter


def f1(matches: int, said: int, known: int) -> float:
    return 100 * 2 * matches / (said + known)


def ngrams(words: list[str], n: int) -> Counter:
    return Counter(tuple(words[place : place + n]) for place in range(len(words) - n + 1))


def longest_common(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return 1 + longest_common(a[:-1], b[:-1])
    return max(longest_common(a[:-1], b), longest_common(a, b[:-1]))


def test_rouge_is_f1_in_percent():
    said, known = "the dog sat on the red mat", "a dog sat by the mat on the hill"
    words = said.split(), known.split()
    wanted = {f"rouge{n}": f1((ngrams(words[0], n) & ngrams(words[1], n)).total(), 8 - n, 10 - n) for n in (1, 2)} | {
        "rougeL": f1(longest_common(*words), 7, 9)
    }
    assert {name: scores[0] for name, scores in score_summaries([said], [known]).items()} == pytest.approx(wanted)


def test_words_are_stemmed_and_case_and_punctuation_do_not_count():
    [score] = score_summaries(["Runners, RUNNING!"], ["runner run"])["rouge1"]
    assert score == pytest.approx(100)
    assert score_summaries([""], ["something"])["rougeL"] == [0.0]


def test_documents_are_read_from_whatever_holds_them(tmp_path: Path):
    rows = [
        {"document": "Long, text.", "summary": "Text", "key": "x"},
        {"document": "B", "summary": "None", "key": "y"},
    ]
    wanted = [Document(0, "Long, text.", "Text"), Document(1, "B", "None")]
    (tmp_path / "a.csv").write_text('document,summary,key\n"Long, text.",Text,x\nB,None,y\n')
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = datasets.Dataset.from_list(rows)
    table.to_parquet(tmp_path / "a.parquet")
    datasets.DatasetDict({"validation": table}).save_to_disk(tmp_path / "saved")
    for name in ("a.csv", "a.jsonl", "a.parquet", "saved"):
        assert read_documents(tmp_path / name) == wanted, name
    [first, _] = read_documents(tmp_path / "a.csv", document_column="key", summary_column="document")
    assert first == Document(0, "x", "Long, text.")


BAD = {
    "no column": ("document,text\na,b\n", "has no column 'summary'; it has document, text"),
    "empty summary": ("document,summary\na,b\nc, \n", "Line 3 of .*: 'summary' is ' '; write a text"),
    "nothing": ("document,summary\n", "holds no rows"),
    "too many fields": ("document,summary\na,b,c\n", "Line 2 of .* has more fields"),
}


@pytest.mark.parametrize("name", BAD)
def test_faulty_tables_are_told(name: str, tmp_path: Path):
    content, message = BAD[name]
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(EvaluationError, match=message):
        read_documents(tmp_path / "a.csv")


def test_a_file_has_no_split(tmp_path: Path):
    (tmp_path / "a.csv").write_text("document,summary\na,b\n")
    assert read_documents(tmp_path / "a.csv", "train", "train") == [Document(0, "a", "b")]
    with pytest.raises(EvaluationError, match=r"a.csv is one table, which has no split 'test'"):
        SummarizationBenchmark.read(tmp_path / "a.csv", "test")


def test_a_model_summarizes_each_document_by_itself(make_model, tokenizer, tmp_path: Path):
    documents = [
        Document("b", "a red circle on a box. " * 30, "a red circle"),
        Document("a", "a blue box.", "a blue box"),
    ]
    benchmark = SummarizationBenchmark(documents)
    assert list(benchmark.order()) == [1, 0]
    writer = WriterAdapter(make_model(), tokenizer, **GENERATION)
    rows = run_benchmark(benchmark, writer, tmp_path)
    assert [row["id"] for row in rows] == ["b", "a"]
    assert [row.get("truncated", False) for row in rows] == [True, False]
    assert benchmark.predict(writer, [1]) == [{"summary": rows[1]["summary"]}]
    report = benchmark.report(rows)
    each = score_summaries([row["summary"] for row in rows], [document.summary for document in documents])
    assert report.overall == {name: pytest.approx(sum(scores) / 2) for name, scores in each.items()}
    assert report.facts["truncated"] == 1
    assert [example.score for example in report.scored] == pytest.approx([score / 100 for score in each["rougeL"]])
    json.dumps(report.as_dict())


def test_summaries_have_ten_to_sixty_tokens(make_model, tokenizer):
    """Beside `<s>` and the end, as fairseq counts them; BART's own limits, of new tokens, do not interfere."""
    model = make_model()
    model.generation_config.max_new_tokens = 5
    ids = model.generate(**tokenizer(["a box", "a red circle"], padding=True, return_tensors="pt"), **GENERATION)
    lengths = [int((row[1:] != tokenizer.pad_token_id).sum()) for row in ids]
    assert all(11 <= length <= 61 for length in lengths)
    short = model.generate(**tokenizer(["a box"], return_tensors="pt"), **GENERATION | {"max_length": 12})
    assert short.shape[1] == 12


def test_no_documents_are_told():
    with pytest.raises(EvaluationError, match="got none"):
        SummarizationBenchmark([])
