"""What a model is shown: the pictures of a data set or, as a control, something else."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.shown_pictures import ShownPictures


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[int, Path]:
    """Pictures whose red is their id."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = {image: folder / f"{image}.png" for image in (3, 5, 7, 11, 13)}
    for image, path in paths.items():
        Image.new("RGB", (8, 8), (image, 0, 0)).save(path)
    return paths


def reds(paths) -> list[int]:
    return [int(np.asarray(Image.open(path))[0, 0, 0]) for path in paths]


def test_without_a_control_each_picture_is_itself(files):
    assert reds(ShownPictures(files).show([7, 3, 7])) == [7, 3, 7]


def test_shuffled_shows_every_picture_once_and_none_as_itself(files):
    for seed in range(20):
        shown = reds(ShownPictures(files, "shuffled", seed).show(files))
        assert sorted(shown) == sorted(files)
        assert all(one != other for one, other in zip(shown, files))
    assert len({tuple(reds(ShownPictures(files, "shuffled", seed).show(files))) for seed in range(20)}) > 1
    assert reds(ShownPictures(files, "shuffled", 4).show(files)) == reds(
        ShownPictures(files, "shuffled", 4).show(files)
    )


def test_what_another_picture_is_shown_for_does_not_depend_on_the_batch(files):
    shown = ShownPictures(files, "shuffled", 1)
    assert reds(shown.show([13])) + reds(shown.show([3, 5])) == reds(shown.show([13, 3, 5]))


def test_blank_is_gray_and_opens_no_file(tmp_path):
    [picture] = ShownPictures({1: tmp_path / "none.png"}, "blank").show([1])
    assert np.unique(np.asarray(picture)).tolist() == [128]
    assert ShownPictures({}, "none").hidden


def test_faults_are_named(files):
    with pytest.raises(EvaluationError, match="There is no control 'grey'; choose one of none, shuffled, blank"):
        ShownPictures(files, "grey")
    with pytest.raises(EvaluationError, match="A single picture cannot be shuffled"):
        ShownPictures({3: files[3]}, "shuffled")
