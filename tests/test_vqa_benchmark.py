"""The benchmark of questions about pictures: what a model is asked, and how its answers are reported."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.protocol import Answer
from modeling_vlkd.evaluation.running import run_benchmark
from modeling_vlkd.evaluation.vlkd_model import VLKDAdapter
from modeling_vlkd.evaluation.vqa_accuracy import score_answers
from modeling_vlkd.evaluation.vqa_benchmark import read_answer_list, read_benchmark, report_answers
from modeling_vlkd.evaluation.vqa_files import VQAAnnotation, read_annotations
from modeling_vlkd.generation_vlkd import generate_answers


ASKED = [(10, 2, "what is it?"), (11, 1, "is it red?"), (12, 2, "is there a circle in the image?"), (13, 3, "what?")]


def annotated(question_id: int, answers: list[str], image_id: int = 1, answer_type: str = "other") -> VQAAnnotation:
    return VQAAnnotation(question_id, image_id, "what", answer_type, answers)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Official files of four questions about three pictures whose green is their id, and the same as a table."""
    (tmp_path / "val").mkdir()
    for image in (1, 2, 3):
        Image.new("RGB", (70, 64), (200, image, 60 * image)).save(tmp_path / f"val/COCO_val2014_{image:012d}.png")
    questions = [{"question_id": number, "image_id": image, "question": text} for number, image, text in ASKED]
    (tmp_path / "q.json").write_text(json.dumps({"questions": questions}))
    people = [
        {
            **{"question_id": number, "image_id": image, "question_type": text.split()[0], "answer_type": "other"},
            "answers": [{"answer": word} for word in ["red"] * 7 + ["a box"] * 3],
        }
        for number, image, text in ASKED
    ]
    (tmp_path / "a.json").write_text(json.dumps({"annotations": people}))
    lines = [f"val/COCO_val2014_{image:012d}.png,{text},red" for _, image, text in ASKED]
    (tmp_path / "q.csv").write_text("\n".join(["image,question,answer", *lines]))
    return tmp_path


class Listener:
    """Answers with the number of the picture that it was shown, and keeps what it was asked."""

    def __init__(self):
        self.looked = 0

    def look(self, images):
        pictures = [each if isinstance(each, Image.Image) else Image.open(each) for each in images]
        self.looked += len(pictures)
        return [picture.getpixel((0, 0))[1] for picture in pictures]

    def answer(self, images, questions, image_index=None):
        if images is None:
            return [Answer(f"{question} nothing") for question in questions]
        return [Answer(f"{question} {images[place]}", 0.5) for question, place in zip(questions, image_index)]


def test_each_question_is_asked_about_its_own_picture_which_is_looked_at_once(folder: Path, tmp_path: Path):
    benchmark, model = read_benchmark(folder / "q.json", folder / "a.json", folder / "val"), Listener()
    rows = run_benchmark(benchmark, model, tmp_path / "run")
    assert [row["answer"] for row in rows] == [f"{text} {image}" for _, image, text in ASKED]
    assert model.looked == 3
    assert [benchmark.ids[position] for position in benchmark.order()] == [10, 12, 11, 13]
    table = read_benchmark(folder / "q.csv")
    assert [row["answer"] for row in table.predict(Listener(), [3, 0])] == ["what? 3", "what is it? 2"]


@pytest.mark.parametrize(("control", "seen"), [("none", {"nothing"}), ("blank", {"128"})])
def test_controls_hide_the_picture(folder: Path, control: str, seen: set[str]):
    benchmark = read_benchmark(folder / "q.csv", control=control)
    assert {row["answer"].split()[-1] for row in benchmark.predict(Listener(), range(4))} == seen


def test_shuffled_shows_questions_of_one_picture_one_other(folder: Path):
    benchmark = read_benchmark(folder / "q.json", folder / "a.json", folder / "val", "shuffled", seed=3)
    seen = [row["answer"].split()[-1] for row in benchmark.predict(Listener(), range(4))]
    assert all(other != str(image) for other, (_, image, _) in zip(seen, ASKED))
    assert seen[0] == seen[2]


def test_a_real_model_answers_as_it_does_alone(folder: Path, make_model, processor):
    model = make_model("vit")
    benchmark = read_benchmark(folder / "q.csv")
    rows = benchmark.predict(VLKDAdapter(model, processor, max_new_tokens=6), range(4))
    for row, (_, image, text) in zip(rows, ASKED):
        picture = Image.open(folder / f"val/COCO_val2014_{image:012d}.png")
        with torch.no_grad():
            embeds = model.get_image_rows(processor(images=picture, return_tensors="pt")["pixel_values"])
            [[alone]] = generate_answers(model, processor, [text], embeds, max_new_tokens=6)
        assert row["answer"] == alone["answer"]
        assert row["score"] == pytest.approx(alone["score"], rel=1e-4)


def test_the_report_is_the_official_figure_with_each_question_and_picture(folder: Path):
    benchmark = read_benchmark(folder / "q.json", folder / "a.json", folder / "val")
    said = ["red", "box", "blue", "the box"]
    report = benchmark.report([{"answer": text, "score": None} for text in said], seed=0)
    official = score_answers(dict(zip(benchmark.ids, said)), read_annotations(folder / "a.json"))
    assert report.overall == official.overall
    assert report.groups["by_question_type"] == official.by_question_type
    assert [each.score for each in report.scored] == [1.0, 0.9, 0.0, 0.9]
    assert (report.scored[1].asked, report.scored[1].truth) == ("is it red?", ["red", "a box"])
    assert report.scored[1].image.endswith("val/COCO_val2014_000000000001.png")


def test_one_answer_a_question_is_compared_exactly(folder: Path):
    report = read_benchmark(folder / "q.csv").report([{"answer": text} for text in ("RED ", "red", "a red", "")], 0)
    assert (report.overall, report.facts) == (50.0, {"measure": "exact match"})
    assert report.groups == {}  # no types are told
    assert [each.score for each in report.scored] == [1, 1, 0, 0]


def test_the_report_of_a_control_has_the_pictures_that_were_shown(folder: Path):
    rows = [{"answer": "red"}] * 4
    hidden = read_benchmark(folder / "q.csv", control="blank").report(rows, 0)
    assert {each.image for each in hidden.scored} == {None}
    benchmark = read_benchmark(folder / "q.csv", control="shuffled", seed=1)
    shown = [Path(each.image).name for each in benchmark.report(rows, 0).scored]
    seen = [row["answer"].split()[-1] for row in benchmark.predict(Listener(), range(4))]
    assert shown == [f"COCO_val2014_{int(image):012d}.png" for image in seen]


def test_without_annotations_nothing_is_scored(folder: Path):
    report = read_benchmark(folder / "q.json", None, folder / "val").report([{"answer": "red"}] * 4, 0)
    assert (report.overall, report.examples) == ({}, 4)


def test_in_domain_is_what_a_classifier_could_answer(tmp_path: Path):
    """By the answer that most gave, normalized; of several such answers one in the list is enough."""
    people = {
        1: annotated(1, ["Red"] * 6 + ["blue"] * 4),
        2: annotated(2, ["blue"] * 6 + ["red"] * 4),
        3: annotated(3, ["the dog"] * 5 + ["red"] * 5),
        4: annotated(4, ["horse riding"] * 10),
    }
    (tmp_path / "list.json").write_text('{"red": 0, "yes": 1}')
    listed = read_answer_list(tmp_path / "list.json")
    report = report_answers({1: "red", 2: "blue", 3: "cat", 4: "horse riding"}, people, answer_list=listed)
    assert report.groups["by_domain"] == {"in-domain": 50.0, "out-of-domain": 100.0}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("q.json", "a.json", None), "holds no pictures, only their ids; give the folder"),
        (("q.csv", "a.json", None), "is a table with answers and pictures; give nothing else beside it"),
        (("q.csv", None, "val"), "is a table with answers and pictures"),
        (("q.json", "a.json", "none"), "There is no folder"),
        (("q.json", "a.json", "empty"), "has no file of pictures 2, 1, 3; give"),
        (("q.json", "half.json", "val"), "ends in the middle"),
        (("q.json", "other.json", "val"), "have no question in common"),
        (("a.json", "a.json", "val"), "holds annotations with answers; give questions"),
        (("none.csv", None, None), "none.csv does not exist"),
    ],
)
def test_files_that_do_not_fit_are_named(folder: Path, given: tuple, message: str):
    (folder / "empty").mkdir()
    (folder / "half.json").write_text((folder / "a.json").read_text()[:90])
    (folder / "other.json").write_text((folder / "a.json").read_text().replace('"question_id": 1', '"question_id": 7'))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_benchmark(*(None if name is None else folder / name for name in given))


@pytest.mark.parametrize("content", ["[]", "3", '["red", 1]'])
def test_a_list_of_answers_has_answers(tmp_path: Path, content: str):
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(EvaluationError, match="holds no answers; give a list of answers"):
        read_answer_list(tmp_path / "list.json")
