"""Files of questions: what is read, and how what is wrong in them is named."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import IMAGE_SIZE, tiny_model, tiny_processor

from modeling_vlkd.evaluation.questions import make_question_set, read_questions


QUESTION = {"image": "a.png", "question": "how many, then?", "answer": "0"}


@pytest.fixture(autouse=True)
def pictures(tmp_path):
    """Five pictures, of which two are equal."""
    for name, shade in zip("abcde", (0, 60, 120, 180, 60)):
        Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), (shade, 0, 0)).save(tmp_path / f"{name}.png")


def test_answers_stay_as_they_are_written(tmp_path):
    answers = ["None", "NA", "0", "007", "False", "café"]
    lines = [f'a.png,"how many, then?",{answer}\n' for answer in answers]
    (tmp_path / "questions.csv").write_text("\ufeffimage,question,answer\n" + "".join(lines), encoding="utf-8")
    rows = read_questions(tmp_path / "questions.csv")
    assert [row["answer"] for row in rows] == answers
    assert rows[0] == QUESTION | {
        "image": str(tmp_path / "a.png"),
        "answer": "None",
        "place": f"Line 2 of {tmp_path}/questions.csv",
    }


def test_json_lines_may_hold_numbers(tmp_path):
    (tmp_path / "questions.jsonl").write_text(
        '{"image": "a.png", "question": "how many, then?", "answer": 0}\n\n'
        '{"image": "b.png", "question": "is it?", "answer": false, "id": 7}\n'
    )
    rows = read_questions(tmp_path / "questions.jsonl")
    assert [row["answer"] for row in rows] == ["0", "False"]
    assert rows[0] == QUESTION | {"image": str(tmp_path / "a.png"), "place": f"Line 1 of {tmp_path}/questions.jsonl"}


HEADER = "image,question,answer\n"
BAD = {
    "empty.csv": ("", "empty.csv holds no questions"),
    "header.csv": (HEADER, "header.csv holds no questions"),
    "comma.csv": (HEADER + "a.png,what?,b\na.png,one, two?,b\n", "Line 3 of {}/comma.csv has more fields than the 3"),
    "quote.csv": (HEADER + 'a.png,"what?,b\na.png,what?,b\n', "quote.csv is no CSV (unexpected end of data)"),
    "short.csv": (HEADER + "a.png,what?\n", "Line 2 of {}/short.csv has an empty answer"),
    "column.csv": ("image,question\na.png,what?\n", "column.csv has no column 'answer'; it has image, question"),
    "latin.csv": (HEADER + "a.png,what?,red\na.png,what?,caf\xe9\n", "Line 3 of {}/latin.csv is not UTF-8"),
    "latin.jsonl": ('\n{"image": "\xe9.png"}\n', "Line 2 of {}/latin.jsonl is not UTF-8"),
    "semicolon.csv": (
        "image;question;answer\na.png;one, two?;b\n",
        "no column 'image'; it has image, question, answer, separated by ';': separate them by commas",
    ),
    "tab.csv": ("image\tquestion\tanswer\n", "it has image, question, answer, separated by tabs"),
    "names.csv": ("img,q,a\na.png,one, two?,b\n", "names.csv has no column 'image'; it has img, q, a."),
    "nowhere.csv": (
        HEADER + "a.png,what?,b\nf.png,what?,b\n",
        "Line 3 of {0}/nowhere.csv: there is no picture {0}/f.png",
    ),
    "empty.jsonl": ("", "empty.jsonl holds no questions"),
    "broken.jsonl": ('{"image": "a.png",\n', "Line 1 of {}/broken.jsonl is no JSON"),
    "list.json": ('[{"image": "a.png"}]', "Line 1 of {}/list.json is no JSON object but ["),
    "null.jsonl": ('{"image": "a", "question": "b", "answer": null}', "Line 1 of {}/null.jsonl has an empty answer"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named_with_its_line(name, tmp_path):
    content, message = BAD[name]
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        read_questions(tmp_path / name)
    assert message.format(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def ask(image) -> dict:
    return {"image": image, "question": "what color is it?", "answer": "red"}


@pytest.fixture(scope="module")
def world():
    processor = tiny_processor()
    return tiny_model(processor).eval(), processor


def looked_at(rows, world) -> tuple[list[int], torch.Tensor]:
    """Gives which picture each row is about, and how many pictures the model was shown."""
    question_set = make_question_set(rows, *world)
    assert len(question_set.questions) == len(question_set.answers) == len(rows)
    return question_set.image_index, question_set.image_embeds


def test_each_path_and_each_picture_is_looked_at_once(world, tmp_path):
    names = ["b", "a", "b", "c"]
    paths = [ask(str(tmp_path / f"{name}.png")) for name in names]
    index, by_path = looked_at(paths, world)
    assert index == [0, 1, 0, 2]
    opened = [ask(Image.open(row["image"])) for row in paths]
    assert looked_at(opened, world)[0] == index
    table = datasets.Dataset.from_list(paths).cast_column("image", datasets.Image())
    index, decoded = looked_at(table, world)
    assert index == [0, 1, 0, 2]
    assert torch.equal(decoded, by_path)
    model, processor = world
    pixels = processor(images=[row["image"] for row in paths], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        torch.testing.assert_close(by_path[index], model.get_image_rows(pixels))


def test_pictures_of_equal_indices_and_other_palettes_are_two(world):
    pictures = [Image.fromarray(np.zeros((IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)).convert("P") for _ in range(2)]
    for picture, shade in zip(pictures, (0, 200)):
        picture.putpalette([shade, 0, 0])
    assert looked_at([ask(picture) for picture in pictures], world)[0] == [0, 1]


def test_what_the_model_cannot_read_is_named_by_its_row_or_line(world, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    rows = [ask(str(tmp_path / "a.png")), ask(str(tmp_path / "broken.png"))]
    with pytest.raises(ValueError, match=r"^Row 1 of the questions: Image .*broken\.png cannot be read"):
        make_question_set(rows, *world)
    (tmp_path / "questions.csv").write_text(f"{HEADER}a.png,what?,b\nbroken.png,what?,b\n")
    with pytest.raises(ValueError, match=r"^Line 3 of .*questions\.csv: Image .*broken\.png cannot be read"):
        make_question_set(read_questions(tmp_path / "questions.csv"), *world)
    (tmp_path / "long.csv").write_text(f"{HEADER}a.png,what?,b\na.png,what?,{'red ' * 100}\n")
    with pytest.raises(
        ValueError, match=r"^Line 3 of .*long\.csv has \d+ tokens, the model reads at most 64; shorten"
    ):
        make_question_set(read_questions(tmp_path / "long.csv"), *world)
    with pytest.raises(ValueError, match=r"^Row 0 of the questions has \d+ tokens"):
        make_question_set([{**ask(str(tmp_path / "a.png")), "question": "why " * 100}], *world)
    with pytest.raises(ValueError, match="got none"):
        make_question_set([], *world)
