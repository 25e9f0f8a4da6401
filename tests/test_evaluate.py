"""`vlkd evaluate` on files as the servers take them: figures, and what is said of wrong ones."""

import json
from pathlib import Path

import pytest

from modeling_vlkd.commands.main import main


ANSWERS = [{"question_id": 1, "answer": "Yes."}, {"question_id": 2, "answer": "two"}]
CAPTIONS = [{"image_id": 5, "caption": "a red bus"}, {"image_id": 6, "caption": "a dog on the grass"}]


def annotation(number: int, answers: list[str], question_type: str, answer_type: str) -> dict:
    ids = {"question_id": number, "image_id": 40 + number, "question_type": question_type, "answer_type": answer_type}
    return {**ids, "answers": [{"answer": text} for text in answers]}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with answers and captions, and what people said."""
    people = [
        annotation(1, ["yes"] * 10, "is the", "yes/no"),
        annotation(2, ["2"] * 3 + ["3"] * 7, "how many", "number"),
    ]
    questions = [{"question_id": number, "image_id": 40 + number, "question": "what?"} for number in (1, 2)]
    images = [{"id": 5, "file_name": "5.jpg"}, {"id": 6, "file_name": "6.jpg"}]
    said = [(5, "a red bus"), (5, "a bus that is red"), (6, "a dog on the grass"), (6, "a brown dog lies on grass")]
    captions = [{"image_id": image, "caption": text} for image, text in said]
    contents = {
        "answers.json": ANSWERS,
        "annotations.json": {"annotations": people},
        "questions.json": {"questions": questions},
        "captions.json": CAPTIONS,
        "references.json": {"images": images, "annotations": captions},
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


VQA = ["--task", "vqa", "--predictions", "answers.json", "--annotations", "annotations.json"]
CAPTIONING = ["--task", "captioning", "--predictions", "captions.json", "--annotations", "references.json"]


def test_answers_get_the_official_accuracy(files: Path, monkeypatch, capsys):
    """Ten equal answers are not normalized, so that "Yes." is wrong; 3 of 10 give 90."""
    monkeypatch.chdir(files)
    assert main(["evaluate", *VQA, "--questions", "questions.json", "--json", "out.json"]) == 0
    assert "45.00" in capsys.readouterr().out
    out = json.loads((files / "out.json").read_text())
    assert out["overall"] == 45.0
    assert out["by_answer_type"] == {"yes/no": 0.0, "number": 90.0}
    assert out["by_question_type"] == {"is the": 0.0, "how many": 90.0}
    assert out["command"].startswith("vlkd evaluate --task vqa --predictions answers.json")
    low, high = out["confidence_95"]["accuracy"]
    assert low <= 45 <= high


def test_captions_get_the_official_metrics(files: Path, monkeypatch, capsys):
    """Those that people gave word for word are perfect; which tokenizer was used is said, here without Java."""
    monkeypatch.chdir(files)
    monkeypatch.setenv("PATH", str(files))
    assert main(["evaluate", *CAPTIONING, "--json", "out.json"]) == 0
    out = json.loads((files / "out.json").read_text())
    assert {"Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"} <= set(out["overall"])
    assert out["overall"]["Bleu_1"] == pytest.approx(1.0)
    assert out["overall"]["ROUGE_L"] == pytest.approx(1.0)
    assert out["tokenizer"] in capsys.readouterr().out


BAD = {
    "no predictions": (VQA[:2], "one of the arguments --checkpoint --predictions is required"),
    "no such file": ([*VQA[:3], "none.json", *VQA[4:]], "none.json does not exist"),
    "results of the other task": ([*VQA[:3], "captions.json", *VQA[4:]], "captions.json holds predicted captions"),
    "captions as answers": ([*CAPTIONING[:3], "answers.json", *CAPTIONING[4:]], "answers.json"),
    "questions for annotations": ([*VQA[:5], "questions.json"], "questions.json holds questions"),
    "annotations for questions": ([*VQA, "--questions", "annotations.json"], "annotations.json"),
    "half a file": ([*VQA[:3], "half.json", *VQA[4:]], "half.json ends in the middle of its line 1"),
    "missing prediction": ([*VQA[:3], "one.json", *VQA[4:]], "question 2"),
    "another split": ([*VQA[:3], "other.json", *VQA[4:]], "have no question in common"),
    "an id that is none": (
        [*VQA[:3], "wrong.json", *VQA[4:]],
        "no entry in annotations.json for question 99",
    ),
    "an id as a text": ([*VQA[:3], "text.json", *VQA[4:]], "'question_id' is \"1\" in entry 1; write a whole number"),
    "a prediction twice": ([*VQA[:3], "twice.json", *VQA[4:]], "more than one entry for question 2; keep one"),
    "an answer without end": ([*VQA[:3], "endless.json", *VQA[4:]], "more than 1,000 characters in question 1"),
    "no list": ([*VQA[:3], "object.json", *VQA[4:]], "object.json holds an object with the key"),
    "an empty file": ([*VQA[:3], "empty.json", *VQA[4:]], "empty.json is empty; give predicted answers"),
    "no text": ([*VQA[:3], "latin.json", *VQA[4:]], "Line 1 of latin.json is not UTF-8"),
    "a question of another picture": ([*VQA, "--questions", "moved.json"], "other pictures stand in moved.json for"),
    "a list without answers": ([*VQA, "--answer-list", "questions.json"], "questions.json holds no answers"),
    "captions missing": ([*CAPTIONING[:3], "one_caption.json", *CAPTIONING[4:]], "there is no caption in one_caption"),
    "an empty caption": ([*CAPTIONING[:3], "blank.json", *CAPTIONING[4:]], "'caption' is empty in image 6"),
    "captions of another split": ([*CAPTIONING[:3], "others.json", *CAPTIONING[4:]], "have no image in common"),
    "no split chosen": ([*CAPTIONING[:5], "karpathy.json"], "has several splits; choose one of test, val"),
    "no such split": (
        [*CAPTIONING[:5], "karpathy.json", "--split", "dev"],
        "has no split 'dev'; choose one of",
    ),
    "captions without pictures": (
        [*CAPTIONING[:5], "captions_only.json"],
        "captions without a list of their",
    ),
    "a folder for a file": ([*CAPTIONING[:5], "."], ". is a folder; give captions by people"),
    "predictions alone": (VQA[:4], "--predictions need --annotations to be compared with"),
    "a batch without a model": ([*VQA, "--batch-size", "4"], "--batch-size is for --checkpoint"),
    "split of vqa": ([*VQA, "--split", "test"], "--split is for captioning, retrieval"),
    "questions of captioning": (
        [*CAPTIONING, "--questions", "questions.json"],
        "--questions is for vqa, not for captioning",
    ),
    "unknown split": ([*CAPTIONING, "--split", "test"], "references.json has no splits"),
    "unknown task": (["--task", "vqaa", *VQA[2:]], "invalid choice: 'vqaa'"),
    "negative seed": ([*VQA, "--seed", "-1"], "--seed -1: give 0 or more"),
    "folder for figures": ([*VQA, "--json", "."], "this is a folder; name a file"),
    "nowhere for figures": ([*VQA, "--json", "no/out.json"], "there is no folder"),
}


def write_bad_files(folder: Path):
    """Write what somebody may give by mistake."""
    sentences = [{"raw": "a dog"}]
    karpathy = [{"split": name, "filename": "1.jpg", "imgid": 1, "sentences": sentences} for name in ("val", "test")]
    moved = [{"question_id": number, "image_id": 7, "question": "what?"} for number in (1, 2)]
    contents = {
        "one.json": ANSWERS[:1],
        "other.json": [{"question_id": 7, "answer": "red"}],
        "wrong.json": [*ANSWERS, {"question_id": 99, "answer": "red"}],
        "text.json": [{"question_id": "1", "answer": "red"}],
        "twice.json": [*ANSWERS, ANSWERS[1]],
        "endless.json": [{"question_id": 1, "answer": "red " * 750}, ANSWERS[1]],
        "object.json": {"answers": ANSWERS},
        "moved.json": {"questions": moved},
        "one_caption.json": CAPTIONS[:1],
        "blank.json": [CAPTIONS[0], {"image_id": 6, "caption": " "}],
        "others.json": [{"image_id": 8, "caption": "a cat"}],
        "karpathy.json": {"images": karpathy},
        "captions_only.json": {"annotations": [{"image_id": 5, "caption": "a cat"}]},
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "half.json").write_text(json.dumps(ANSWERS)[:40])
    (folder / "empty.json").write_text("\n")
    (folder / "latin.json").write_bytes('[{"question_id": 1, "answer": "caf\xe9"}]'.encode("latin-1"))


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_one_line_and_nothing_is_written_over(name: str, files: Path, monkeypatch, capsys):
    words, message = BAD[name]
    monkeypatch.chdir(files)
    write_bad_files(files)
    (files / "out.json").write_text("mine")
    words = words if "--json" in words else [*words, "--json", "out.json"]
    try:
        code = main(["evaluate", *words])
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    assert code == 2
    assert message in captured.err
    assert captured.err.startswith("vlkd evaluate: error: ")
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""
    assert (files / "out.json").read_text() == "mine"
