"""Examples of GLUE from the official files and from tables of one's own, and files for the GLUE server."""

import json
from pathlib import Path

import datasets
import pytest

from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.glue_files import GlueExample, read_glue, write_submission
from modeling_vlkd.evaluation.glue_tasks import TASKS


# Lines as in the official downloads: the name of each task, its file, its content, and what is in it.
MNLI_NAMES = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
    "sentence2_parse\tsentence1\tsentence2\tlabel1\tlabel2\tgold_label"
)
OFFICIAL = [
    (
        *("cola", "dev.tsv", 'gj04\t1\t\tThe "sailors rode the breeze.\ngj04\t0\t*\tThe the.\n'),
        [GlueExample(0, ('The "sailors rode the breeze.',), 1), GlueExample(1, ("The the.",), 0)],
    ),
    ("cola", "test.tsv", "index\tsentence\n0\tBill ran.\n", [GlueExample(0, ("Bill ran.",))]),
    (
        *("sst2", "dev.tsv", "sentence\tlabel\nit 's a charming journey . \t1\nNone\t0\n"),
        [GlueExample(0, ("it 's a charming journey .",), 1), GlueExample(1, ("None",), 0)],
    ),
    ("sst2", "test.tsv", "index\tsentence\n0\tuneasy\n", [GlueExample(0, ("uneasy",))]),
    (
        *("mrpc", "dev.tsv", '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\t"He said\tShe said\n'),
        [GlueExample(0, ('"He said', "She said"), 1)],
    ),
    (
        *(
            *("stsb", "dev.tsv"),
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
            "0\tmain\tf\t2012\t5\tnone\tnone\tA man.\tA person.\t4.250\n",
        ),
        [GlueExample(0, ("A man.", "A person."), 4.25)],
    ),
    (
        "qqp",
        "train.tsv",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n9\t1\t2\tWhy?\tHow?\t0\n8\tbroken\n7\t1\t3\t\tWho?\t1\n",
        [GlueExample(0, ("Why?", "How?"), 0), GlueExample(1, ("", "Who?"), 1)],
    ),
    (
        *("mnli", "dev_matched.tsv"),
        f"{MNLI_NAMES}\n0\t1\t2\tfiction\t(\t(\t(\t(\tYou know.\tYou do.\tneutral\tneutral\tneutral\n",
        [GlueExample(0, ("You know.", "You do."), 1)],
    ),
    (
        *("mnli_mismatched", "dev_mismatched.tsv"),
        f"{MNLI_NAMES}\n3\t1\t2\tfiction\t(\t(\t(\t(\tYes.\tNo.\tneutral\tneutral\tcontradiction\n",
        [GlueExample(3, ("Yes.", "No."), 2)],
    ),
    (
        *("qnli", "dev.tsv", "index\tquestion\tsentence\tlabel\n0\tWho?\tIt was he.\tentailment\n"),
        [GlueExample(0, ("Who?", "It was he."), 0)],
    ),
    (
        *("rte", "dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tnot_entailment\n"),
        [GlueExample(0, ("A.", "B."), 1)],
    ),
]


@pytest.mark.parametrize(("task", "name", "content", "examples"), OFFICIAL)
def test_official_files_are_read(task: str, name: str, content: str, examples: list, tmp_path: Path):
    folder = tmp_path / TASKS[task].folder
    folder.mkdir()
    (folder / name).write_text(content, encoding="utf-8")
    assert read_glue(TASKS[task], folder / name) == examples
    split = "train" if name.startswith("train") else "test" if name.startswith("test") else "validation"
    assert read_glue(TASKS[task], folder, split) == examples
    assert read_glue(TASKS[task], tmp_path, split) == examples  # the folder of the whole download


def test_tables_are_read_with_the_columns_of_datasets(tmp_path: Path):
    rows = [{"premise": "A, b.", "hypothesis": "NA", "label": 2}, {"premise": "C.", "hypothesis": "D.", "label": 0}]
    wanted = [GlueExample(0, ("A, b.", "NA"), 2), GlueExample(1, ("C.", "D."), 0)]
    (tmp_path / "a.csv").write_text('premise,hypothesis,label\n"A, b.",NA,contradiction\nC.,D.,0\n')
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = datasets.ClassLabel(names=list(TASKS["mnli"].labels))
    features = datasets.Features({"premise": datasets.Value("string"), "hypothesis": datasets.Value("string")})
    table = datasets.Dataset.from_list(rows, features=datasets.Features({**features, "label": names}))
    table.to_parquet(tmp_path / "a.parquet")
    table.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": table, "validation_matched": table}).save_to_disk(tmp_path / "splits")
    for source in ("a.csv", "a.jsonl", "a.parquet", "saved", "splits"):
        assert read_glue(TASKS["mnli"], tmp_path / source) == wanted, source
    assert read_glue(TASKS["mnli"], tmp_path / "splits", "train") == wanted


def test_both_parts_of_mnli_are_read_from_its_splits_on_the_hub(monkeypatch):
    """The configuration `mnli_mismatched` there has neither a part to train on nor splits with its name."""
    splits = ("train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched")
    tables = {
        name: datasets.Dataset.from_dict({"premise": [name], "hypothesis": ["B"], "label": [1]}) for name in splits
    }
    asked = []
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda source: ["mnli", "mnli_mismatched"])
    monkeypatch.setattr(datasets, "load_dataset", lambda *names: asked.append(names) or datasets.DatasetDict(tables))
    read = {
        (task, split): read_glue(TASKS[task], "nyu-mll/glue", split, split)[0].texts[0]
        for task in ("mnli", "mnli_mismatched")
        for split in ("train", "validation", "test")
    }
    assert read == {
        ("mnli", "train"): "train",
        ("mnli", "validation"): "validation_matched",
        ("mnli", "test"): "test_matched",
        ("mnli_mismatched", "train"): "train",
        ("mnli_mismatched", "validation"): "validation_mismatched",
        ("mnli_mismatched", "test"): "test_mismatched",
    }
    assert set(asked) == {("nyu-mll/glue", "mnli")}
    assert read_glue(TASKS["mnli"], "nyu-mll/glue", "test_mismatched")[0].texts[0] == "test_mismatched"


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.tsv", "saved"])
def test_one_table_has_no_split_but_the_one_that_is_meant_anyway(name: str, tmp_path: Path):
    table = datasets.Dataset.from_dict({"sentence": ["a"], "label": [1]})
    write = {
        "a.csv": table.to_csv,
        "a.jsonl": table.to_json,
        "a.parquet": table.to_parquet,
        "saved": table.save_to_disk,
    }
    write.get(name, lambda path: table.to_csv(path, sep="\t"))(tmp_path / name)
    for split, default in (("validation", "validation"), ("train", "train")):
        assert read_glue(TASKS["sst2"], tmp_path / name, split, default) == [GlueExample(0, ("a",), 1)]
    with pytest.raises(EvaluationError, match=f"{name} is one table, which has no split 'test'; give the table"):
        read_glue(TASKS["sst2"], tmp_path / name, "test")


@pytest.mark.parametrize("value", [-1, -1.0, None, ""])
@pytest.mark.parametrize("task", ["rte", "stsb"])
def test_a_test_split_has_no_labels(task: str, value, tmp_path: Path):
    row = {"sentence1": "A", "sentence2": "B", "label": value, "idx": 5}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    assert read_glue(TASKS[task], tmp_path / "a.jsonl") == [GlueExample(5, ("A", "B"))]


BAD = {
    "no column": ("sst2", "a.tsv", "text\tlabel\nx\t1\n", "has no column 'sentence' between tabs; it has text, label"),
    "no column of csv": ("sst2", "a.csv", "text,label\nx,1\n", "a.csv has no column 'sentence'; it has text, label"),
    "commas": ("sst2", "a.tsv", "sentence,label\nx,1\n", "no column 'sentence' between tabs"),
    "label too great": (
        "sst2",
        "a.tsv",
        "sentence\tlabel\nx\t2\n",
        "Line 2 of .*a.tsv: '2' is no label of SST-2; give",
    ),
    "label below 0": (
        "sst2",
        "a.csv",
        "sentence,label\nx,-2\n",
        r"'-2' is no label of SST-2; give one of 0 \(negative\)",
    ),
    "label unknown": ("rte", "a.csv", "sentence1,sentence2,label\nx,y,maybe\n", "'maybe' is no label of RTE"),
    "score too great": ("stsb", "a.csv", "sentence1,sentence2,label\nx,y,5.1\n", "'5.1' is no score of STS-B; give"),
    "score no number": ("stsb", "a.csv", "sentence1,sentence2,label\nx,y,nan\n", "'nan' is no score of STS-B"),
    "empty file": ("sst2", "a.tsv", "", "has no column 'sentence' between tabs; it has none"),
    "no rows": ("sst2", "a.tsv", "sentence\tlabel\n", "holds no examples"),
    "no rows of csv": ("sst2", "a.csv", "sentence,label\n", "holds no rows"),
    "no text": ("sst2", "a.csv", "sentence,label\n ,1\n", "Line 2 of .*a.csv is empty"),
    "text is a number": ("sst2", "a.jsonl", '{"sentence": 4, "label": 1}\n', "'sentence' is 4; write a text"),
    "no json": ("sst2", "a.jsonl", "{\n", "Line 1 of .* is no JSON"),
    "unknown kind": ("sst2", "a.xlsx", "x", "is of no known kind; give a .csv"),
    "other encoding": ("sst2", "a.tsv", "sentence\tlabel\n\udce9\t1\n", "Line 2 of .* is not UTF-8"),
    "index": ("sst2", "a.csv", "index,sentence,label\nx,y,1\n", "'x' is no index"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_faulty_file_is_told_in_one_line(name: str, tmp_path: Path):
    task, file, content, message = BAD[name]
    (tmp_path / file).write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(EvaluationError, match=message) as raised:
        read_glue(TASKS[task], tmp_path / file)
    assert "\n" not in str(raised.value)


def test_a_source_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(EvaluationError, match=r"none.tsv does not exist; give a .csv"):
        read_glue(TASKS["sst2"], tmp_path / "none.tsv")
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"sentence": ["a"], "label": [1]})}).save_to_disk(
        tmp_path / "saved"
    )
    with pytest.raises(EvaluationError, match="has no split 'validation'; it has train"):
        read_glue(TASKS["sst2"], tmp_path / "saved")


def test_short_lines_are_told(tmp_path: Path, caplog):
    (tmp_path / "train.tsv").write_text("sentence\tlabel\nfine\t1\nbroken\n")
    assert len(read_glue(TASKS["sst2"], tmp_path / "train.tsv")) == 1
    assert "1 lines with too few fields are left out, line 3 first" in caplog.text


@pytest.mark.parametrize(
    ("task", "predictions", "file", "lines"),
    [
        ("sst2", [1, 0], "SST-2.tsv", ["0\t0", "4\t1"]),
        ("mnli_mismatched", [2, 0], "MNLI-mm.tsv", ["0\tentailment", "4\tcontradiction"]),
        ("rte", [1, 0], "RTE.tsv", ["0\tentailment", "4\tnot_entailment"]),
        ("stsb", [5.3, 2.0], "STS-B.tsv", ["0\t2.000", "4\t5.000"]),
    ],
)
def test_submissions_are_as_the_server_takes_them(task: str, predictions, file: str, lines, tmp_path: Path):
    path = write_submission(tmp_path / "new", TASKS[task], [4, 0], predictions)
    assert path == tmp_path / "new" / file
    assert path.read_text() == "\n".join(["index\tprediction", *lines]) + "\n"


def test_a_submission_that_cannot_be_written_leaves_what_was_there(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(EvaluationError, match=r"RTE.tsv cannot be written .*, and nothing was changed"):
        write_submission(tmp_path / "file", TASKS["rte"], [0], [1])
    assert (tmp_path / "file").read_text() == "mine"
