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
    with pytest.raises(EvaluationError, match=r"results.json: 'caption' is null in image 2; write a text in quotes"):
        write_captions(path, {1: "a", 2: None})
    with pytest.raises(EvaluationError, match=r"results.json: 'image_id' is \"1\" in entry 1; write a whole number"):
        write_captions(path, {"1": "a"})
    assert os.listdir(tmp_path) == ["results.json"]
    assert read_captions(path) == captions


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = save(tmp_path / "results.json", "before")
    with pytest.raises(EvaluationError, match=r"cannot be written \(Is a directory\), .* or give another name"):
        write_captions(tmp_path, {1: "a"})
    with pytest.raises(
        EvaluationError, match=r"none/a.json cannot be written \(No such file or directory\), .*; make its folder"
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
GIVE_RESULTS = 'give predicted captions as [{"image_id": ..., "caption": ...}, ...].'
GIVE_REFERENCES = 'give captions by people as {"annotations": [{"image_id": ..., "caption": ...}, ...]}.'
GIVE_PICTURES = 'pictures as {"images": [{"id": ...}, ...]}.'
QUESTION = {"question_id": 5, "image_id": 1, "question": "what?"}
ANSWER = {"question_id": 5, "image_id": 1, "question_type": "", "answer_type": "", "answers": []}
KARPATHY = {"images": [karpathy(1, "train", "a", cocoid=8), karpathy(2, "val", "b", cocoid=9)]}
BAD_RESULTS = {
    "VQA": ([{"question_id": 5, "answer": "yes"}], "FILE holds predicted answers; " + GIVE_RESULTS),
    "VQA after captions": ([DOG, {"image_id": 5, "answer": "yes"}], "FILE: 'caption' is missing in image 5;"),
    "questions": ({"questions": [QUESTION]}, "FILE holds questions; " + GIVE_RESULTS),
    "annotated answers": ({"annotations": [ANSWER]}, "FILE holds annotations with answers; " + GIVE_RESULTS),
    "Visual Genome": ([{"id": 1, "qas": []}], "FILE holds questions and answers of Visual Genome; " + GIVE_RESULTS),
    "annotations": (coco(*TWO), "FILE holds captions by people; " + GIVE_RESULTS),
    "Karpathy's": (KARPATHY, "FILE holds captions with Karpathy's splits; " + GIVE_RESULTS),
    "an object": ({"1": "a dog"}, 'FILE holds an object with the key "1"; ' + GIVE_RESULTS),
    "a number": (7, "FILE holds 7; " + GIVE_RESULTS),
    "nothing": ([], "FILE holds no predicted captions, only an empty list; " + GIVE_RESULTS),
    "an empty file": ("\n", "FILE is empty; " + GIVE_RESULTS),
    "half": ('[{"image_id": 1,\n"caption": "a d', "FILE ends in the middle of its line 2; write or fetch it again."),
    "half, between": ('[{"image_id": 1,\n', "FILE ends in the middle of its line 1; write or fetch it again."),
    "a line each": ('{"image_id": 1}\n{"image_id": 2}', "Line 2 of FILE is no JSON (Extra data); " + GIVE_RESULTS),
    "no JSON": ("[\nNone]", "Line 2 of FILE is no JSON (Expecting value); " + GIVE_RESULTS),
    "deep": ("[" * 200_000, "FILE is nested too deeply or has too long a number; " + GIVE_RESULTS),
    "digits": ("[" + "1" * 5000 + "]", "FILE is nested too deeply or has too long a number; " + GIVE_RESULTS),
    "Latin-1": ('[\n{"caption": "café"}]'.encode("latin-1"), "Line 2 of FILE is not UTF-8 (invalid contin"),
    "UTF-16": (
        "[1]".encode("utf-16"),
        "Line 1 of FILE is not UTF-8 (invalid start byte); save the file again as UTF-8.",
    ),
    "no id": ([DOG, {"caption": "a"}], "FILE: 'image_id' is missing in entry 2; write it."),
    "no caption": ([{"image_id": 8, "text": "a"}], "FILE: 'caption' is missing in image 8; write it."),
    "text as id": ([{"image_id": "8", "caption": "a"}], "FILE: 'image_id' is \"8\" in entry 1; write a whole"),
    "true as id": ([{"image_id": True, "caption": "a"}], "FILE: 'image_id' is true in entry 1; write a whole number"),
    "list as caption": (
        [{"image_id": 8, "caption": ["a\n"]}],
        "FILE: 'caption' is [\"a\\n\"] in image 8; write a text",
    ),
    "null as caption": ([{"image_id": 8, "caption": None}], "FILE: 'caption' is null in image 8; write a text"),
    "a text": (["a dog"], 'FILE: there is no object {"...": ...} in entry 1; write'),
    "twice": ([DOG, DOG, DOG | {"image_id": 2}], "FILE: there is more than one entry for image 1; keep one of each."),
    "empty": (
        [{"image_id": image, "caption": " \n"} for image in range(10, 17)],
        "FILE: 'caption' is empty in images 10, 11, 12, 13, 14 and 2 more; caption",
    ),
    "long": (
        [DOG, {"image_id": 2, "caption": "a" * 1001}],
        "FILE: there are captions of more than 1,000 characters for image 2; write",
    ),
    "half a character": (
        '[{"image_id": 3, "caption": "\\ud83d"}]',
        "FILE: there are captions with half a character for image 3; write",
    ),
}


@pytest.mark.parametrize("name", BAD_RESULTS)
def test_bad_results_are_named(name, tmp_path):
    content, message = BAD_RESULTS[name]
    path = save(tmp_path / "results.json", content)
    with pytest.raises(EvaluationError) as caught:
        read_captions(path)
    assert str(caught.value).startswith(message.replace("FILE", str(path)))
    assert "\n" not in str(caught.value)


SPLITS = {"split of COCO": "val", "unknown split": "dev", "id of another type": "val"}
BAD_REFERENCES = {
    "results": ([DOG], "FILE holds predicted captions; " + GIVE_REFERENCES),
    "answers": ({"annotations": [ANSWER]}, "FILE holds annotations with answers; " + GIVE_REFERENCES),
    "questions": ({"questions": [QUESTION]}, "FILE holds questions; " + GIVE_REFERENCES),
    "no questions": ({"questions": []}, 'FILE holds an object with the key "questions"; ' + GIVE_REFERENCES),
    "no images": ({"annotations": []}, "FILE holds captions without a list of their pictures; add " + GIVE_PICTURES),
    "images of a test set": (
        {"images": [{"id": 1}]},
        'FILE holds an object with the key "images"; ' + GIVE_REFERENCES,
    ),
    "a number": (7, "FILE holds 7; " + GIVE_REFERENCES),
    "none": (
        {"images": [], "annotations": []},
        '"images" of FILE holds no pictures, only an empty list; give ' + GIVE_PICTURES,
    ),
    "an object of images": (
        {"images": {"1": {}}, "annotations": []},
        "FILE holds captions without a list of their pictures; add " + GIVE_PICTURES,
    ),
    "an image without id": (
        {"images": [{}], "annotations": []},
        "\"images\" of FILE: 'id' is missing in entry 1; write it.",
    ),
    "two of one id": (
        coco(*TWO, images=(1, 2, 2)),
        '"images" of FILE: there is more than one entry for image 2; keep',
    ),
    "boxes": (
        {"images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]},
        "\"annotations\" of FILE: 'caption' is missing in entry 1; write it.",
    ),
    "annotation as text": (
        coco(*TWO) | {"annotations": ["a dog"]},
        '"annotations" of FILE: there is no object {"...": ...} in entry 1; write',
    ),
    "unlisted": (
        coco(*TWO, (6, "a"), (6, "b")),
        'FILE: there are captions, but no entry in "images", for image 6; add one of each.',
    ),
    "uncaptioned": (
        coco(*TWO, images=range(1, 10)),
        "FILE: there is no caption of images 3, 4, 5, 6, 7 and 2 more; leave",
    ),
    "blank": (coco((1, "a"), (2, " "), (2, "")), "FILE: there is no caption of image 2; leave these images out."),
    "long": (
        coco((1, "a" * 1001), (2, "b")),
        "FILE: there are captions of more than 1,000 characters for image 1; write",
    ),
    "file name": (coco(*TWO, file_name=3), "\"images\" of FILE: 'file_name' is 3 in images 1, 2; write a text"),
    "domain": (
        coco(*TWO, domain="indoor"),
        '"images" of FILE: \'domain\' is "indoor" in images 1, 2; make it one of in-domain, near',
    ),
    "split of COCO": (coco(*TWO), "FILE has no splits, so no 'val'; leave the split out, or give Karpathy's file."),
    "unknown split": (KARPATHY, "FILE has no split 'dev'; choose one of train, val."),
    "no split": (KARPATHY, "FILE has several splits; choose one of train, val."),
    "split of another type": (
        {"images": [*KARPATHY["images"], KARPATHY["images"][0] | {"split": 1}]},
        "\"images\" of FILE: 'split' is 1 in entry 3; write a text",
    ),
    "id of another type": (
        {"images": [karpathy(1, "train", "a"), karpathy("2", "val", "b")]},
        '"images" of FILE: \'imgid\' is "2" in entry 2; write a whole',
    ),
    "two of one id in a split": (
        {"images": [karpathy(image, "val", "a", cocoid=8) for image in (1, 2)]},
        '"images" of FILE: there is more than one entry for image 8; keep',
    ),
    "no sentence": ({"images": [karpathy(1, "val", cocoid=8)]}, "FILE: there is no caption of image 8; leave"),
    "sentences as texts": (
        {"images": [karpathy(1, "val") | {"sentences": ["a"]}]},
        '"images" of FILE: \'sentences\' holds something else than texts in image 1; write [{"raw": "a dog"}, ...].',
    ),
}


@pytest.mark.parametrize("name", BAD_REFERENCES)
def test_bad_references_are_named(name, tmp_path):
    content, message = BAD_REFERENCES[name]
    path = save(tmp_path / "references.json", content)
    with pytest.raises(EvaluationError) as caught:
        read_references(path, SPLITS.get(name))
    assert str(caught.value).startswith(message.replace("FILE", str(path)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("read", "remedy"), [(read_captions, GIVE_RESULTS), (read_references, GIVE_REFERENCES)])
def test_no_file_and_a_folder_are_named(read, remedy, tmp_path):
    with pytest.raises(EvaluationError) as caught:
        read(tmp_path)
    assert str(caught.value) == f"{tmp_path} is a folder; {remedy}"
    with pytest.raises(EvaluationError) as caught:
        read(str(tmp_path / "none.json"))
    assert str(caught.value) == f"{tmp_path}/none.json does not exist; {remedy}"


REFERENCES = CaptionReferences({image: ["a"] for image in range(1, 9)}, {}, source="val.json")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            [20, 21],
            "results.json (with image 20, for one) and val.json (with image 1) have no image in common; give files",
        ),
        ([], "results.json (with no image, for one) and val.json (with image 1) have no image in common; give files"),
        ([1, 20], "results.json: there is no entry in val.json for image 20; take these out, or give the annotations"),
        ([8, 2], "val.json: there is no caption in results.json for images 1, 3, 4, 5, 6 and 1 more; caption these"),
    ],
)
def test_captions_and_references_are_of_the_same_pictures(images, message):
    with pytest.raises(EvaluationError) as caught:
        check_together(dict.fromkeys(images, "a"), REFERENCES, "results.json")
    assert str(caught.value).startswith(message)


def test_captions_of_all_pictures_pass():
    check_together(dict.fromkeys(range(8, 0, -1), "a"), REFERENCES, "results.json")
