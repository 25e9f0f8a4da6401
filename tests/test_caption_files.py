"""Files of captions: what is read and written, and how what is wrong in them is named in one line."""

import json
import os

import pytest

from modeling_vlkd.evaluation.caption_files import (
    CaptionReferences,
    check_together,
    read_captions,
    read_references,
    write_captions,
)
from modeling_vlkd.evaluation.errors import EvaluationError


def coco(*captions: tuple[int, str], images=(1, 2), **fields) -> dict:
    """Annotations of COCO, with more fields in each image."""
    return {
        "info": {"year": 2014},
        "images": [{"id": image, "file_name": f"{image:012}.jpg", **fields} for image in images],
        "annotations": [{"id": 9, "image_id": image, "caption": text} for image, text in captions],
    }


def karpathy(image: int, split: str, *texts: str, **fields) -> dict:
    sentences = [{"tokens": text.split(), "raw": text, "imgid": image, "sentid": 0} for text in texts]
    return {"imgid": image, "split": split, "filename": f"{image}.jpg", "sentences": sentences, **fields}


TWO = ((1, "A dog."), (2, "two men"), (1, "the dog"))


def save(path, content):
    """Write JSON, or text or bytes as they are."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_annotations_of_coco(tmp_path):
    path = save(tmp_path / "captions_val2014.json", coco(*TWO))
    references = read_references(path)
    assert references.captions == {1: ["A dog.", "the dog"], 2: ["two men"]}
    assert references.file_names == {1: "000000000001.jpg", 2: "000000000002.jpg"}
    assert references.domains is None
    assert references.source == str(path)
    nameless = {
        "images": [{"id": 1}],
        "annotations": [{"image_id": 1, "caption": ""}, {"image_id": 1, "caption": "a"}],
    }
    assert read_references(save(path, nameless)) == CaptionReferences({1: ["", "a"]}, {}, None, str(path))


def test_annotations_of_nocaps_have_domains(tmp_path):
    content = coco(*TWO)
    content["images"][0]["domain"], content["images"][1]["domain"] = "in-domain", "out-domain"
    references = read_references(save(tmp_path / "nocaps.json", content))
    assert references.domains == {1: "in-domain", 2: "out-domain"}


def test_splits_of_karpathy(tmp_path):
    images = [
        karpathy(0, "train", "a", cocoid=50),
        karpathy(1, "test", "A dog.", "the dog", cocoid=7),
        karpathy(2, "test", "men", cocoid=3),
    ]
    path = save(tmp_path / "dataset_coco.json", {"images": images, "dataset": "coco"})
    references = read_references(path, split="test")
    assert references.captions == {7: ["A dog.", "the dog"], 3: ["men"]}
    assert references.file_names == {7: "1.jpg", 3: "2.jpg"}
    path = save(
        tmp_path / "dataset_flickr30k.json", {"images": [karpathy(31, "val", "a dog"), karpathy(4, "val", "b")]}
    )
    assert read_references(path, "val").captions == read_references(path).captions == {31: ["a dog"], 4: ["b"]}


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "results.json"
    captions = {42: 'a "dog"\nruns', 7: "日本 café 😀"}
    write_captions(path, captions)
    assert read_captions(path) == captions
    assert json.loads(path.read_text())[0] == {"image_id": 42, "caption": 'a "dog"\nruns'}
    assert read_captions(save(path, b"\xef\xbb\xbf" + path.read_bytes())) == captions
    with pytest.raises(EvaluationError, match=r"Caption 2 for .* has None as 'caption'; make it a text"):
        write_captions(path, {1: "a", 2: None})
    with pytest.raises(EvaluationError, match=r"Caption 1 for .* has '1' as 'image_id'; make it an integer"):
        write_captions(path, {"1": "a"})
    assert os.listdir(tmp_path) == ["results.json"]
    assert read_captions(path) == captions


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = save(tmp_path / "results.json", "before")
    with pytest.raises(EvaluationError, match="is a folder; give the name of a JSON file"):
        write_captions(tmp_path, {1: "a"})
    with pytest.raises(
        EvaluationError, match=r"none/a.json cannot be written \(No such file or directory\); make its"
    ):
        write_captions(tmp_path / "none" / "a.json", {1: "a"})

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full_disk)
    with pytest.raises(EvaluationError, match=r"cannot be written \(No space left on device\)"):
        write_captions(path, {1: "a"})
    assert os.listdir(tmp_path) == ["results.json"]
    assert path.read_text() == "before"


DOG = {"image_id": 1, "caption": "a dog"}
BAD_RESULTS = {
    "VQA by id": (
        [{"question_id": 5, "answer": "yes"}],
        "Result 1 of {} answers question 5: these are results of visual",
    ),
    "VQA": (
        [DOG, {"image_id": 5, "answer": "yes"}],
        "Result 2 of {} answers question null: these are results of visual",
    ),
    "annotations": (coco(*TWO), "{} holds annotations, not results; give a list of "),
    "an object": ({"1": "a dog"}, '{} holds {{"1": "a dog"}}, not results; give a list of '),
    "a number": (7, "{} holds 7, not results; give a list of "),
    "nothing": ([], "{} holds no captions; caption the pictures first."),
    "an empty file": ("\n", "Line 2 of {} is no JSON (Expecting value, column 1); the file is empty: write it again."),
    "half": (
        '[{"image_id": 1,\n"caption": "a d',
        "Line 2 of {} is no JSON (Unterminated string starting at, column 12)",
    ),
    "half, between": (
        '[{"image_id": 1,\n',
        "Line 2 of {} is no JSON (Expecting property name enclosed in double quotes",
    ),
    "a line each": (
        '{"image_id": 1}\n{"image_id": 2}',
        "Line 2 of {} is no JSON (Extra data, column 1); a file holds one",
    ),
    "no JSON": (
        "[\nNone]",
        "Line 2 of {} is no JSON (Expecting value, column 1); mend this line, or write the file again",
    ),
    "deep": ("[" * 200_000, "{} cannot be read as JSON ("),
    "digits": ("[" + "1" * 5000 + "]", "{} cannot be read as JSON ("),
    "Latin-1": (
        '[\n{"caption": "café"}]'.encode("latin-1"),
        "Line 2 of {} is not UTF-8 (invalid continuation byte); save",
    ),
    "UTF-16": ("[1]".encode("utf-16"), "Line 1 of {} is not UTF-8 (invalid start byte); save it again as UTF-8."),
    "no id": (
        [DOG, {"caption": "a"}],
        "Result 2 of {} has no 'image_id' but [\"caption\"]; add it, or give another file.",
    ),
    "no caption": ([{"image_id": 8, "text": "a"}], "Result 1 of {} (image 8) has no 'caption' but "),
    "text as id": ([{"image_id": "8", "caption": "a"}], "Result 1 of {} has \"8\" as 'image_id'; make it an integer."),
    "true as id": ([{"image_id": True, "caption": "a"}], "Result 1 of {} has true as 'image_id'; make it an integer."),
    "list as caption": (
        [{"image_id": 8, "caption": ["a\n"]}],
        "Result 1 of {} (image 8) has [\"a\\n\"] as 'caption'; make",
    ),
    "null as caption": (
        [{"image_id": 8, "caption": None}],
        "Result 1 of {} (image 8) has null as 'caption'; make it a text",
    ),
    "a text": (["a dog"], "Result 1 of {} is not an object but \"a dog\"; it needs 'image_id'."),
    "twice": ([DOG, DOG, DOG | {"image_id": 2}], "{} has images 1 more than once; keep one of each."),
    "empty": (
        [{"image_id": image, "caption": " \n"} for image in range(10, 17)],
        "{} has empty captions of images 10, 11, 12, 13, 14 and 2 more; caption these again.",
    ),
    "long": (
        [DOG, {"image_id": 2, "caption": "a" * 1001}],
        "{} has captions of more than 1,000 characters, of images 2;",
    ),
    "half a character": (
        '[{"image_id": 3, "caption": "\\ud83d"}]',
        "{} has captions with half a character, of images 3;",
    ),
}


@pytest.mark.parametrize("name", BAD_RESULTS)
def test_bad_results_are_named(name, tmp_path):
    content, message = BAD_RESULTS[name]
    path = save(tmp_path / "results.json", content)
    with pytest.raises(EvaluationError) as caught:
        read_captions(path)
    assert str(caught.value).startswith(message.format(path))
    assert "\n" not in str(caught.value)


KARPATHY = {"images": [karpathy(1, "train", "a", cocoid=8), karpathy(2, "val", "b", cocoid=9)]}
BAD_REFERENCES = {
    "results": ([DOG], None, "{} holds a list, as results do; give annotations, with images and captions."),
    "questions": ({"questions": []}, None, "{} holds questions, of visual question answering; give annotations"),
    "no images": (
        {"annotations": []},
        None,
        "{} has no 'images' but [\"annotations\"]; add it, or give another file.",
    ),
    "images of a test set": ({"images": [{"id": 1}]}, None, "{} has no 'annotations' but [\"images\"]; add it"),
    "a number": (7, None, "{} is not an object but 7; it needs 'images'."),
    "none": ({"images": [], "annotations": []}, None, "{} has no images; give annotations of captions."),
    "an object of images": ({"images": {"1": {}}}, None, "{} has {{\"1\": {{}}}} as 'images'; make it a list."),
    "an image without id": ({"images": [{}], "annotations": []}, None, "Image 1 of {} has no 'id' but []; add it"),
    "two of one id": (coco(*TWO, images=(1, 2, 2)), None, "{} has images 2 more than once; keep one of each."),
    "boxes": (
        {"images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]},
        None,
        'Annotation 1 of {} has no \'caption\' but ["image_id", "bbox"]; add it, or give another file.',
    ),
    "unlisted": (
        coco(*TWO, (6, "a"), (6, "b")),
        None,
        "{} has captions of images 6 but does not list these; add them",
    ),
    "uncaptioned": (
        coco(*TWO, images=range(1, 10)),
        None,
        "{} has no caption of images 3, 4, 5, 6, 7 and 2 more; leave",
    ),
    "blank": (coco((1, "a"), (2, " "), (2, "")), None, "{} has no caption of images 2; leave these images out."),
    "long": (
        coco((1, "a" * 1001), (2, "b")),
        None,
        "{} has captions of more than 1,000 characters, of images 1; write",
    ),
    "file name": (coco(*TWO, file_name=3), None, "Image 1 of {} has 3 as 'file_name'; make it a text."),
    "domain": (
        coco(*TWO, domain="indoor"),
        None,
        '{} has "indoor" as a domain, of images 1, 2; make it one of in-domain',
    ),
    "split of COCO": (
        coco(*TWO),
        "val",
        "{} has no splits, so no 'val'; leave the split out, or give Karpathy's file.",
    ),
    "unknown split": (KARPATHY, "dev", "{} has no split 'dev'; choose one of train, val."),
    "no split": (KARPATHY, None, "{} has several splits; choose one of train, val."),
    "no sentence": (
        {"images": [karpathy(1, "val", cocoid=8)]},
        "val",
        "{} has no caption of images 8; leave these images out.",
    ),
    "sentences as texts": (
        {"images": [karpathy(1, "val") | {"sentences": ["a"]}]},
        "val",
        "A sentence of image 1 of {} is not an object but \"a\"; it needs 'raw'.",
    ),
}


@pytest.mark.parametrize("name", BAD_REFERENCES)
def test_bad_references_are_named(name, tmp_path):
    content, split, message = BAD_REFERENCES[name]
    path = save(tmp_path / "references.json", content)
    with pytest.raises(EvaluationError) as caught:
        read_references(path, split)
    assert str(caught.value).startswith(message.format(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_captions, read_references])
def test_no_file_and_a_folder_are_named(read, tmp_path):
    with pytest.raises(EvaluationError, match="is a folder; give a JSON file"):
        read(tmp_path)
    with pytest.raises(EvaluationError, match=r"none.json does not exist; give a JSON file"):
        read(tmp_path / "none.json")


REFERENCES = CaptionReferences({image: ["a"] for image in range(1, 9)}, {}, source="val.json")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            [20, 21],
            "results.json and val.json have no image in common (20, 21; 1, 2, 3, 4, 5 and 3 more): these are "
            "annotations of another split; give those of the captioned pictures.",
        ),
        ([], "results.json and val.json have no image in common (; 1, 2, 3, 4, 5 and 3 more)"),
        ([1, 20], "results.json captions images 20, unknown to val.json; leave them out, or give the annotations of"),
        ([8, 2], "results.json lacks 6 of the 8 images of val.json: 1, 3, 4, 5, 6 and 1 more; caption these too."),
    ],
)
def test_captions_and_references_are_of_the_same_pictures(images, message):
    with pytest.raises(EvaluationError) as caught:
        check_together(dict.fromkeys(images, "a"), REFERENCES, "results.json")
    assert str(caught.value).startswith(message)


def test_captions_of_all_pictures_pass():
    check_together(dict.fromkeys(range(8, 0, -1), "a"), REFERENCES)
