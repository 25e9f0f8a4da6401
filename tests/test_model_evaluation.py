"""`vlkd evaluate --checkpoint`: models on a data set, their folders, and their table."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from modeling_vlkd.commands.main import main


QUESTIONS = ["what is it?", "is it red?", "is there a circle in the image?"]


@pytest.fixture
def data(tmp_path: Path, monkeypatch) -> Path:
    """A folder with questions and captions of three pictures, in which the command runs."""
    for number in (1, 2, 3):
        Image.new("RGB", (64, 64), (80 * number, 40, 90)).save(tmp_path / f"{number}.png")
    lines = [f"{number}.png,{text},red" for number, text in enumerate(QUESTIONS, 1)]
    (tmp_path / "q.csv").write_text("\n".join(["image,question,answer", *lines]))
    images = [{"id": number, "file_name": f"{number}.png"} for number in (1, 2, 3)]
    said = [{"image_id": number, "caption": f"a box in color {number}"} for number in (1, 2, 3)]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": said}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # without Java, which takes seconds
    return tmp_path


def test_questions_are_answered_scored_and_kept(data: Path, tiny_checkpoint: Path, capsys):
    words = ["evaluate", "--task", "vqa", "--checkpoint", str(tiny_checkpoint), "--questions", "q.csv"]
    assert main([*words, "--output-dir", "out", "--json", "out.json"]) == 0
    [folder] = (data / "out").iterdir()
    answers = json.loads((folder / "answers.json").read_text())
    assert [each["question_id"] for each in answers] == [1, 2, 3]
    report = json.loads((data / "out.json").read_text())
    assert report == json.loads((folder / "report.json").read_text())
    assert report["examples"] == 3
    assert report["measure"] == "exact match"
    examples = [json.loads(line) for line in (folder / "examples.jsonl").read_text().splitlines()]
    assert [each["said"] for each in examples] == [each["answer"] for each in answers]
    assert [each["asked"] for each in examples] == QUESTIONS
    assert "accuracy" in capsys.readouterr().out

    predictions = (folder / "predictions-0.jsonl").read_bytes()
    assert main([*words, "--output-dir", "out"]) == 0  # all is there already
    assert (folder / "predictions-0.jsonl").read_bytes() == predictions


def test_a_checkpoint_that_was_trained_further_is_another_model(data: Path, tiny_checkpoint: Path, capsys):
    shutil.copytree(tiny_checkpoint, data / "mine")
    words = ["evaluate", "--task", "vqa", "--checkpoint", "mine", "--questions", "q.csv"]
    assert main(words) == 0
    os.utime(data / "mine" / "model.safetensors", ns=(1, 1))
    assert main(words) == 2
    assert "holds predictions of another run: weights was" in capsys.readouterr().err


def test_controls_have_folders_of_their_own(data: Path, tiny_checkpoint: Path):
    shutil.copytree(tiny_checkpoint, data / "mine")
    words = ["evaluate", "--task", "vqa", "--checkpoint", "mine", "--questions", "q.csv"]
    for control in ("none", "shuffled", "blank"):
        assert main([*words, "--control", control]) == 0
    assert {path.name for path in (data / "vlkd-evaluation/vqa").iterdir()} == {
        "mine-none",
        "mine-shuffled",
        "mine-blank",
    }


def test_several_models_are_one_table_and_one_that_fails_spoils_nothing(data: Path, tiny_checkpoint: Path, capsys):
    for name in ("one", "two"):
        shutil.copytree(tiny_checkpoint, data / name)
    words = ["evaluate", "--task", "captioning", "--annotations", "captions.json", "--images", "."]
    code = main([*words, "--checkpoint", "one", "./none", "two", "--json", "out.json"])
    captured = capsys.readouterr()
    assert code == 2
    assert captured.err.count("./none: ") == 1
    out = json.loads((data / "out.json").read_text())
    assert list(out["models"]) == ["one", "two"]
    assert out["models"]["one"]["overall"] == out["models"]["two"]["overall"]
    assert {"CIDEr", "Bleu_4", "ROUGE_L"} <= set(out["models"]["one"]["overall"])
    captions = json.loads((data / "vlkd-evaluation/captioning/one/captions.json").read_text())
    assert [each["image_id"] for each in captions] == [1, 2, 3]
    table = captured.out.split("┏")[-1]
    assert "one" in table
    assert "two" in table


def test_data_that_changed_are_other_data(data: Path, tiny_checkpoint: Path, capsys):
    words = ["evaluate", "--task", "classification", "--checkpoint", str(tiny_checkpoint), "--labels", "labels.csv"]
    (data / "labels.csv").write_text("image,label\n1.png,red\n2.png,blue\n")
    (data / "templates.txt").write_text("a picture of {}.\n")
    assert main([*words, "--templates", "templates.txt"]) == 0
    (data / "templates.txt").write_text("a photo of {}.\n")
    assert main([*words, "--templates", "templates.txt"]) == 2
    assert "holds predictions of another run: templates was" in capsys.readouterr().err


def test_two_folders_of_one_name_are_two_models(data: Path, tiny_checkpoint: Path):
    for name in ("a/b", "a-b"):
        shutil.copytree(tiny_checkpoint, data / name)
    assert main(["evaluate", "--task", "vqa", "--checkpoint", "a/b", "a-b", "--questions", "q.csv"]) == 0
    assert {path.name for path in (data / "vlkd-evaluation/vqa").iterdir()} == {"a-b", "a-b-2"}


BAD = {
    "no data": ([], "--task vqa needs --questions"),
    "no pictures": (["--questions", "official.json"], "holds no pictures, only their ids"),
    "a split of vqa": (
        ["--questions", "q.csv", "--split", "val"],
        "--split is for captioning, retrieval",
    ),
    "the same model twice": (["--questions", "q.csv", "--checkpoint", "mine", "mine"], "is given twice; give it once"),
    "no model there": (["--questions", "q.csv", "--checkpoint", "./no"], "./no"),
    "a model and predictions": (["--questions", "q.csv", "--predictions", "p.json"], "not allowed with argument"),
    "an unknown control": (["--questions", "q.csv", "--control", "grey"], "invalid choice: 'grey'"),
    "no batch": (["--questions", "q.csv", "--batch-size", "0"], "expected a whole number of at least 1, got '0'"),
    "a file for the folder": (["--questions", "q.csv", "--output-dir", "q.csv"], "cannot hold predictions"),
    "no such picture": (["--questions", "lost.csv"], "Line 2 of lost.csv: there is no picture lost.png"),
    "a broken picture": (["--questions", "broken.csv"], "broken.png cannot be read"),
    "a prompt for classes": (
        ["--task", "classification", "--images", ".", "--prompt", "a"],
        "--prompt is for vqa",
    ),
    "no labels": (["--task", "classification"], "--task classification needs --images with a folder for each class"),
    "an empty table": (["--questions", "empty.csv"], "empty.csv"),
    "a question too long": (["--questions", "long.csv"], "the model reads at most"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_one_line_and_nothing_is_written_over(name: str, data: Path, tiny_checkpoint: Path, capsys):
    words, message = BAD[name]
    shutil.copytree(tiny_checkpoint, data / "mine")
    (data / "broken.png").write_bytes(b"\x89PNG\r\n")
    (data / "official.json").write_text('{"questions": [{"question_id": 1, "image_id": 1, "question": "what?"}]}')
    for table, image in (("lost", "lost.png"), ("broken", "broken.png")):
        (data / f"{table}.csv").write_text(f"image,question,answer\n{image},what?,red\n")
    (data / "long.csv").write_text(f"image,question,answer\n1.png,{'what is it ' * 100}?,red\n")
    (data / "empty.csv").write_text("")
    (data / "out.json").write_text("mine")
    words = words if "--checkpoint" in words else ["--checkpoint", "mine", *words]
    try:
        code = main(["evaluate", "--task", "vqa", *words, "--json", "out.json"])
    except SystemExit as stopped:
        code = stopped.code
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert len([line for line in error.splitlines() if line.startswith("vlkd evaluate: error: ")]) == 1
    assert (data / "out.json").read_text() == "mine"
