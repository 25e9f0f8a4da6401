"""Pictures of data sets are found by what their files tell of them."""

from pathlib import Path

import pytest

from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.picture_files import find_picture_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = ["val2014/COCO_val2014_000000000042.jpg", "train2014/COCO_train2014_000000000007.jpg", "9.PNG"]
    names += ["flickr/1000092795.jpg", "flickr/odd.jpg", "readme42.txt", "a/12.jpg", "b/000012.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_the_last_number_of_a_name_is_the_id(folder: Path):
    found = find_picture_files(folder, [42, 7, 9, 42])
    assert {image: path.name for image, path in found.items()} == {
        42: "COCO_val2014_000000000042.jpg",
        7: "COCO_train2014_000000000007.jpg",
        9: "9.PNG",
    }


def test_a_known_name_wins_over_the_number_with_its_folder_or_without(folder: Path):
    names = {42: "odd.jpg", 12: "b/000012.jpg"}
    found = find_picture_files(folder, [42, 12], names)
    assert found == {42: folder / "flickr/odd.jpg", 12: folder / "b/000012.jpg"}


def test_missing_and_doubtful_pictures_are_named(folder: Path):
    with pytest.raises(EvaluationError, match=r"has no file of pictures 42, 8 \(eight.jpg\); give"):
        find_picture_files(folder / "a", [42, 12, 8], {8: "eight.jpg"})
    with pytest.raises(EvaluationError, match="more than one file of picture 12;"):
        find_picture_files(folder, [12])
    with pytest.raises(EvaluationError, match="There is no folder"):
        find_picture_files(folder / "none", [12])
