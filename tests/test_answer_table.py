"""`vlkd answer --questions`: a table in, a table out."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor
from modeling_vlkd.commands import pictures
from modeling_vlkd.commands.main import main
from modeling_vlkd.evaluation.vlkd_model import VLKDAdapter
from modeling_vlkd.evaluation.vqa_files import read_results


ROWS = [  # pictures of two names and one name twice, apart
    {"image": "pictures/a.png", "question": "what color is the shape?", "note": 'x, "y"\nz'},
    {"image": "pictures/b.png", "question": "is there a circle in the image?", "note": "007"},
    {"image": "pictures/a.png", "question": "is there a circle in the image?", "note": "ä"},
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    generator = np.random.default_rng(0)
    for name in "ab":
        noise = generator.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "pictures" / f"{name}.png")
    return tmp_path


@pytest.fixture
def answer(place, tiny_checkpoint) -> Callable[..., int]:
    return lambda *words: main(["answer", *map(str, words), "--checkpoint", str(tiny_checkpoint)])


def write_csv(path: Path, rows: list[dict], encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def told_one_by_one(checkpoint: Path, place: Path) -> list[tuple[str, str]]:
    """The answers and scores to `ROWS`, each question asked alone."""
    model = VLKDForConditionalGeneration.from_pretrained(checkpoint)
    adapter = VLKDAdapter(model, VLKDProcessor.from_pretrained(checkpoint))
    found = [adapter.answer([place / row["image"]], [row["question"]])[0] for row in ROWS]
    return [(each.text, f"{each.score:.4f}") for each in found]


def rounded(rows: list[dict], name: str = "answer", score: str = "score") -> list[tuple[str, str]]:
    return [(row[name], f"{float(row[score]):.4f}") for row in rows]


def test_answers_are_added_to_all_that_the_table_has(answer, place, tiny_checkpoint):
    questions = write_csv(place / "q.csv", ROWS)
    assert answer("--questions", questions, "--output", place / "a.csv", "--batch-size", 1) == 0
    rows = read_csv((place / "a.csv").read_text(encoding="utf-8"))
    assert list(rows[0]) == ["image", "question", "note", "answer", "score"]
    assert [{name: row[name] for name in ROWS[0]} for row in rows] == ROWS
    assert rounded(rows) == told_one_by_one(tiny_checkpoint, place)


def test_lines_of_json_give_lines_of_json_and_keep_their_types(answer, place, tiny_checkpoint):
    questions = write_lines(place / "q.jsonl", [row | {"tags": ["x", 1], "id": 7} for row in ROWS])
    assert answer("--questions", questions, "--output", place / "a.jsonl") == 0
    rows = [json.loads(line) for line in (place / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["tags"], row["id"]) for row in rows] == [(["x", 1], 7)] * 3
    assert rounded(rows) == told_one_by_one(tiny_checkpoint, place)
    assert answer("--questions", questions, "--output", place / "a.csv") == 0
    assert read_csv((place / "a.csv").read_text(encoding="utf-8"))[0]["tags"] == '["x", 1]'


def test_without_a_file_the_table_is_printed(answer, place, tiny_checkpoint, capsys):
    assert answer("--questions", write_csv(place / "q.csv", ROWS)) == 0
    assert rounded(read_csv(capsys.readouterr().out)) == told_one_by_one(tiny_checkpoint, place)


def test_answers_that_the_table_has_stay(answer, place, tiny_checkpoint):
    """Then the table is a test set, and `vlkd evaluate --questions` can still read it."""
    questions = write_csv(place / "q.csv", [row | {"answer": "right"} for row in ROWS])
    assert answer("--questions", questions, "--output", place / "a.csv") == 0
    rows = read_csv((place / "a.csv").read_text(encoding="utf-8"))
    assert {row["answer"] for row in rows} == {"right"}
    assert rounded(rows, "prediction") == told_one_by_one(tiny_checkpoint, place)
    assert answer("--questions", place / "a.csv", "--output", place / "b.csv") == 2  # whose prediction would it be?


def test_official_results_can_be_written(answer, place, tiny_checkpoint):
    questions = write_csv(place / "q.csv", [row | {"question_id": 30 - n} for n, row in enumerate(ROWS)])
    assert answer("--questions", questions, "--output", place / "r.json") == 0
    told = [text for text, _ in told_one_by_one(tiny_checkpoint, place)]
    assert read_results(place / "r.json") == {30: told[0], 29: told[1], 28: told[2]}


def test_each_picture_is_opened_once_and_few_are_in_memory(answer, place, monkeypatch):
    opened, looked = [], []
    original, look = pictures.open_image, VLKDAdapter.look
    monkeypatch.setattr(pictures, "open_image", lambda path: (opened.append(Path(path).name), original(path))[1])
    monkeypatch.setattr(VLKDAdapter, "look", lambda self, images: (looked.append(len(images)), look(self, images))[1])
    assert answer("--questions", write_csv(place / "q.csv", ROWS * 5), "--batch-size", 1) == 0
    assert opened == ["a.png", "b.png"]
    assert set(looked) == {1}


def test_a_broken_picture_leaves_its_rows_empty(answer, place, tiny_checkpoint, capsys):
    told = told_one_by_one(tiny_checkpoint, place)
    (place / "pictures" / "b.png").write_bytes(b"no picture")
    lost = {"image": "pictures/lost.png", "question": "what?", "note": ""}
    assert answer("--questions", write_csv(place / "q.csv", [*ROWS, lost]), "--output", place / "a.csv") == 2
    rows = read_csv((place / "a.csv").read_text(encoding="utf-8"))
    assert [(row["answer"], row["score"]) for row in (rows[1], rows[3])] == [("", "")] * 2
    assert rounded([rows[0], rows[2]]) == [told[0], told[2]]
    complaints = capsys.readouterr().err.strip().splitlines()
    assert len(complaints) == 2
    assert "b.png cannot be read" in complaints[0]
    assert "lost.png does not exist" in complaints[1]


MISTAKES = [
    # the table's name and content, more words, and what the one line says
    ("q.csv", "image,question\npictures/a.png,\n", "", "Line 2 of {place}/q.csv has an empty question"),
    ("q.csv", "image,question\n,what?\n", "", "Line 2 of {place}/q.csv has an empty image"),
    ("q.csv", "picture,question\na.png,what?\n", "", "has no column 'image'; it has picture, question"),
    ("q.csv", "image;question\na.png;what?\n", "", "separated by ';': separate them by commas"),
    ("q.csv", "image,question\n", "", "holds no questions; give a file with the columns image, question"),
    ("q.csv", "", "", "holds no questions"),
    ("q.csv", "image,question\npictures/a.png,caf\xe9?\n", "", "Line 2 of {place}/q.csv is not UTF-8"),
    ("q.csv", "image,question\npictures/a.png,a,b\n", "", "has more fields than the 2"),
    ("q.jsonl", '{"image": "pictures/a.png"}\n', "", "has no column 'question'"),
    ("q.jsonl", "[]\n", "", "is no JSON object"),
    ("q.txt", "what?", "", "is neither .csv nor .jsonl"),
    ("q.csv", "image,question\npictures/a.png," + "why " * 200, "", "Line 2 of {place}/q.csv has"),
    ("q.csv", "image,question\npictures/a.png,what?\n", "--output {place}/a.txt", "has to end in .csv, .jsonl, .json"),
    ("q.csv", "image,question\npictures/a.png,what?\n", "--output {place}/no/a.csv", "there is no folder {place}/no"),
    ("q.csv", "image,question\npictures/a.png,what?\n", "--output {place}/q.csv", "is the table of questions itself"),
    (
        "q.csv",
        "image,question\npictures/a.png,what?\n",
        "--output {place}/r.json",
        "Line 2 of {place}/q.csv has no whole",
    ),
    (
        "q.csv",
        "image,question,question_id\npictures/a.png,what?,1\npictures/a.png,who?,1\n",
        "--output {place}/r.json",
        "Line 3 of {place}/q.csv and Line 2 of {place}/q.csv have the same question_id, 1",
    ),
    (
        "q.csv",
        "image,question\npictures/a.png,what?\n",
        "{place}/pictures/a.png",
        "leave '{place}/pictures/a.png' out",
    ),
    ("q.csv", "image,question\npictures/a.png,what?\n", "--question who?", "leave --question out"),
    ("q.csv", "image,question\npictures/a.png,what?\n", "--top-k 2", "a table gets one answer in each row"),
    ("q.csv", "image,question\npictures/a.png,what?\n", "--json", "give --output answers.jsonl"),
]


@pytest.mark.parametrize(("name", "content", "words", "message"), MISTAKES)
def test_a_mistake_gets_one_line_and_nothing_is_written(name, content, words, message, answer, place, capsys):
    (place / name).write_bytes(content.encode("latin-1"))
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    try:
        code = answer("--questions", place / name, *words.format(place=place).split())
    except SystemExit as stop:  # argparse exits so
        code = stop.code
    assert code == 2
    captured = capsys.readouterr()
    [line] = captured.err.strip().splitlines()
    assert message.format(place=place) in line
    assert captured.out == ""
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_an_output_without_a_table_is_refused(answer, place, capsys):
    with pytest.raises(SystemExit):
        answer(place / "pictures" / "a.png", "what?", "--output", place / "a.csv")
    assert "--output is for the answers to --questions FILE" in capsys.readouterr().err
