"""Names of classes, templates and labeled pictures are read, and what is wrong with them is said by name."""

import json
from pathlib import Path

import open_clip
import pytest
from PIL import Image

from modeling_vlkd.evaluation.class_files import (
    LabeledPictures,
    check_classes,
    read_class_folder,
    read_classes,
    read_label_table,
    read_templates,
)
from modeling_vlkd.evaluation.errors import EvaluationError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with three pictures, and things that are no pictures of a class."""
    for name in ("pictures/cat/b.PNG", "pictures/cat/deep/a.jpg", "pictures/a dog/1.png", "pictures/.cache/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    for name in ("pictures/stray.png", "pictures/cat/Thumbs.db"):
        (tmp_path / name).touch()
    return tmp_path / "pictures"


def test_the_subfolders_are_the_labels(folder: Path):
    found = read_class_folder(folder)
    assert found.ids == ["a dog/1.png", "cat/b.PNG", "cat/deep/a.jpg"]
    assert found.labels == ["a dog", "cat", "cat"]
    assert list(found.paths) == [folder / each for each in found.ids]
    (folder / "cow").mkdir()
    with pytest.raises(EvaluationError, match="there are no pictures of class cow; add some"):
        read_class_folder(folder)
    with pytest.raises(EvaluationError, match=r"deep has no subfolders; put the pictures"):
        read_class_folder(folder / "cat" / "deep")
    with pytest.raises(EvaluationError, match=r"There is no folder .*nowhere"):
        read_class_folder(folder / "nowhere")


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl"])
def test_a_table_tells_the_label_of_each_picture(folder: Path, tmp_path: Path, name: str):
    rows = [("cat/b.PNG", "cat, tame"), ("a dog/1.png", "7")]
    if name.endswith(".csv"):
        text = "label,image,more\n" + "".join(f'"{label}",{image},x\n' for image, label in rows)
    else:
        text = '{"image": "cat/b.PNG", "label": "cat, tame"}\n\n{"image": "a dog/1.png", "label": 7}\n'
    (tmp_path / name).write_text(text)
    found = read_label_table(tmp_path / name, folder)
    assert (found.ids, found.labels) == (["cat/b.PNG", "a dog/1.png"], ["cat, tame", "7"])
    assert found.paths == [folder / "cat/b.PNG", folder / "a dog/1.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,class\na.png,cat\n", "has no column 'label'; it has image, class"),
        ("image;label\na.png;cat\n", "separated by ';'"),
        ("image,label\ncat/b.PNG,\n", "Line 2 of .*labels.csv lacks an image or a label"),
        ("image,label\n", "labels.csv has no rows"),
        ("image,label\ncat/b.PNG,cat\ncat/b.PNG,dog\n", "there is more than one row of picture cat/b.PNG"),
        ("image,label\ncat/c.png,cat\nd.png,cat\n", "does not have pictures cat/c.png, d.png; mend the names"),
    ],
)
def test_faults_of_a_table_are_told(folder: Path, tmp_path: Path, text: str, message: str):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(EvaluationError, match=message):
        read_label_table(tmp_path / "labels.csv", folder)


def test_a_table_that_is_not_there_is_told(folder: Path):
    with pytest.raises(EvaluationError, match=r"labels.csv does not exist; give a table"):
        read_label_table(folder / "labels.csv", folder)


@pytest.mark.parametrize(
    ("name", "text", "classes"),
    [
        ("names.txt", "tench\n\n great white shark \n", {"tench": "tench", "great white shark": "great white shark"}),
        ("names.json", '["tench", "crane"]', {"tench": "tench", "crane": "crane"}),
        ("names.json", '{"n01": "tench", "n02": "crane"}', {"n01": "tench", "n02": "crane"}),
    ],
)
def test_classes_are_read_from_lines_a_list_or_an_object(tmp_path: Path, name: str, text: str, classes: dict):
    (tmp_path / name).write_text(text)
    assert read_classes(tmp_path / name, []) == classes


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("names.txt", "tench\ncrane\ntench \ncrane\n", "there is more than one of classes tench, crane; give each"),
        ("names.json", '{"n01": "crane", "n02": "crane"}', "there is more than one of class crane;"),
        ("names.json", '["tench", 3]', "holds no names of classes"),
        ("names.json", '["tench", " "]', "holds no names of classes"),
        ("names.json", '"tench"', "holds no names of classes"),
        ("names.json", '["tench"', "ends in the middle of its line 1"),
        ("names.txt", "\n", "holds no names of classes"),
    ],
)
def test_faults_of_classes_are_told(tmp_path: Path, name: str, text: str, message: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(EvaluationError, match=message):
        read_classes(tmp_path / name, [])


def test_imagenet_has_the_names_of_clip_in_the_order_of_its_folders():
    labels = [f"n{place:08d}" for place in reversed(range(1000))]
    classes = read_classes("imagenet", labels * 2)
    assert list(classes) == sorted(labels)
    assert [classes[f"n{place:08d}"] for place in (0, 134, 517)] == ["tench", "crane bird", "construction crane"]
    with pytest.raises(EvaluationError, match="The pictures have 999 labels, and ImageNet 1,000;"):
        read_classes("imagenet", labels[1:])


def test_templates_are_those_of_clip_or_of_a_file(tmp_path: Path):
    assert read_templates() == ["a photo of a {}."]
    openai = read_templates("openai")
    assert len(openai) == 80
    assert [each.replace("{}", "cat") for each in openai] == [t("cat") for t in open_clip.OPENAI_IMAGENET_TEMPLATES]
    simple = read_templates("simple")
    assert len(simple) == 7
    assert set(simple) < set(openai)
    (tmp_path / "templates.txt").write_text("a {}.\n\n {} {{}}!\n")
    assert read_templates(tmp_path / "templates.txt") == ["a {}.", "{} {{}}!"]
    (tmp_path / "templates.json").write_text(json.dumps(["the {}"]))
    assert read_templates(tmp_path / "templates.json") == ["the {}"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.txt", "a {}.\nno place\n{ }\n", r"there is no {}, the place of the class, in templates 'no place', '{ }'"),
        ("t.json", "[3]", "there is no {}, the place of the class, in template '?3"),
        ("t.json", "{}", "holds no templates; give such as"),
        ("t.txt", " \n", "holds no templates; give such as"),
    ],
)
def test_faults_of_templates_are_told(tmp_path: Path, name: str, text: str, message: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(EvaluationError, match=message):
        read_templates(tmp_path / name)
    with pytest.raises(EvaluationError, match="opanai does not exist; give templates, one a line, or one of openai"):
        read_templates("opanai")


def test_labels_and_classes_belong_together():
    pictures = LabeledPictures(["1", "2", "3"], [Path("1"), Path("2"), Path("3")], ["cat", "cow", "cow"], "labels.csv")
    check_classes(pictures, {"cow": "a cow", "cat": "a cat"})
    with pytest.raises(
        EvaluationError, match=r"labels.csv: there are pictures of the label 'cow', which is no class am"
    ):
        check_classes(pictures, {"cat": "a cat", "dog": "a dog"})
    with pytest.raises(EvaluationError, match="there are no pictures of classes dog, owl; add some"):
        check_classes(pictures, dict.fromkeys(["cat", "dog", "cow", "owl"], "x"))
