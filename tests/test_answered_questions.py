"""Questions with the answers of people: files of data sets with their pictures, examples, and their evaluation."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_training import DIM, tiny_model, tiny_processor

from modeling_vlkd.trainers.answered_questions import AnswerEvaluation, QuestionExamples, read_answered_questions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train2014").mkdir()
    (tmp_path / "VG_100K").mkdir()
    for name in (
        "train2014/COCO_train2014_000000000042.png",
        "train2014/COCO_train2014_000000000007.png",
        "VG_100K/1.png",
    ):
        Image.new("RGB", (8, 8), "red").save(tmp_path / name)
    asked = [{"question_id": n, "image_id": image, "question": f"what is {n}?"} for n, image in ((1, 42), (2, 7))]
    said = {1: ["red"] * 6 + ["Red "] * 2 + ["", "pink"], 2: ["box"] * 10}
    types = {"question_type": "what is", "answer_type": "other"}
    answered = [
        {"question_id": n, "image_id": image, "answers": [{"answer": each} for each in said[n]], **types}
        for n, image in ((1, 42), (2, 7))
    ]
    genome = [{"id": 1, "qas": [{"qa_id": 5, "image_id": 1, "question": "where?", "answer": "Here."}]}]
    for name, content in {
        "questions.json": {"questions": asked},
        "annotations.json": {"annotations": answered},
        "question_answers.json": genome,
    }.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "table.csv").write_text("image,question,answer\nVG_100K/1.png,what?,red\n")
    return tmp_path


def test_files_of_vqav2_are_read_with_their_pictures(folder: Path):
    first, second = read_answered_questions(
        folder / "questions.json", folder / "annotations.json", folder / "train2014"
    )
    assert first["image"] == str(folder / "train2014" / "COCO_train2014_000000000042.png")
    assert (first["question"], first["answer"]) == ("what is 1?", "red")
    assert first["answers"] == ["red"] * 6 + ["Red"] * 2 + ["pink"]  # as they were written; the empty one is left out
    assert second["answers"] == ["box"] * 10


def test_visual_genome_and_tables_have_one_answer(folder: Path):
    [of_genome] = read_answered_questions(folder / "question_answers.json", images=folder / "VG_100K")
    assert (of_genome["answers"], of_genome["image"]) == (["Here."], str(folder / "VG_100K" / "1.png"))
    [of_table] = read_answered_questions(folder / "table.csv")
    assert (of_table["answers"], of_table["place"]) == (["red"], f"Line 2 of {folder}/table.csv")


@pytest.mark.parametrize(
    ("annotations", "images", "message"),
    [
        ("annotations.json", None, "annotations.json names pictures by their ids; give the folder"),
        ("annotations.json", "VG_100K", "has no file of pictures 42, 7"),
        (None, "train2014", "questions.json holds questions; give annotations with answers"),
    ],
)
def test_what_is_missing_is_named(folder: Path, annotations, images, message):
    paths = [None if name is None else folder / name for name in (annotations, images)]
    with pytest.raises(ValueError, match=message):
        read_answered_questions(folder / "questions.json", *paths)


def test_questions_without_answers_are_named(folder: Path):
    content = json.loads((folder / "annotations.json").read_text())
    (folder / "annotations.json").write_text(json.dumps({"annotations": content["annotations"][:1]}))
    with pytest.raises(ValueError, match="there are no answers to question 2 of"):
        read_answered_questions(folder / "questions.json", folder / "annotations.json", folder / "train2014")
    content["annotations"][1]["answers"] = [{"answer": " "}] * 3
    (folder / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="all answers are empty to question 2"):
        read_answered_questions(folder / "questions.json", folder / "annotations.json", folder / "train2014")


@pytest.mark.parametrize("frozen", [True, False])
def test_pictures_are_looked_at_once_only_if_the_tower_is_frozen(folder: Path, frozen: bool):
    processor = tiny_processor()
    model = tiny_model(processor)
    model.config.freeze_vision_tower = frozen
    rows = read_answered_questions(folder / "questions.json", folder / "annotations.json", folder / "train2014")
    example = QuestionExamples.of(rows, model, processor)[0]
    assert example["answers"] == pytest.approx({"red": 6 / 9, "Red": 2 / 9, "pink": 1 / 9})
    if frozen:
        expected = model.eval().get_image_rows(processor(images=[rows[0]["image"]], return_tensors="pt").pixel_values)
        torch.testing.assert_close(example["image_embeds"], expected[0].detach())
    else:
        assert example["image"] == rows[0]["image"]
        assert "image_embeds" not in example


def test_answers_that_are_too_long_are_named(folder: Path):
    processor = tiny_processor()
    rows = read_answered_questions(folder / "questions.json", folder / "annotations.json", folder / "train2014")
    rows[0]["answers"].append("red " * 100)
    with pytest.raises(ValueError, match=r"Question 1 has \d+ tokens, the model reads at most 64"):
        QuestionExamples.of(rows, tiny_model(processor), processor)


def test_answers_are_scored_as_their_data_set_scores_them():
    rows = [{"answers": ["red"] * 3 + ["pink"] * 7}, {"answers": ["Red"]}, {"answers": ["two dogs"]}]
    evaluation = AnswerEvaluation(QuestionExamples(rows), tiny_processor())
    # 3 of 10 score .9 by the official evaluator, which leaves each out in turn; one known answer is right or not.
    assert evaluation.score(["red", "red", "2 dogs"]) == {"vqa_accuracy": pytest.approx((0.9 + 1 + 0) / 3)}


def test_any_share_of_the_questions_is_asked_about_its_own_pictures(folder: Path):
    """Rows kept or pictures opened anew, all questions or some: the same answers."""
    processor = tiny_processor()
    model = tiny_model(processor).eval()
    model.generation_config.max_new_tokens = 4
    for number, name in enumerate(["42", "07"]):
        Image.new("RGB", (8, 8), ["blue", "yellow"][number]).save(
            folder / f"train2014/COCO_train2014_0000000000{name}.png"
        )
    rows = read_answered_questions(folder / "questions.json", folder / "annotations.json", folder / "train2014")
    kept, opened = QuestionExamples.of(rows, model, processor), QuestionExamples(rows)
    assert kept.image_embeds.shape == (2, 1, DIM)
    found = [AnswerEvaluation(each, processor).predict(model, [0, 1], 8) for each in (kept, opened)]
    alone = [AnswerEvaluation(each, processor).predict(model, [1], 8) for each in (kept, opened)]
    assert found[0] == found[1]
    assert alone == [found[0][1:], found[0][1:]]
