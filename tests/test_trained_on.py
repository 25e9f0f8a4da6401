"""What a run was trained on is told alike wherever and whenever the same data are loaded."""

import json
import os
import shutil
import subprocess
import sys

import datasets
import pytest
from PIL import Image

from modeling_vlkd.trainers.answered_questions import read_answered_questions
from modeling_vlkd.trainers.captioned_images import load_captioned_images
from modeling_vlkd.trainers.trained_on import OtherDataError, TrainedOn


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder of three pictures, the first with two captions, loaded with a cache of its own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(3):
        Image.new("RGB", (8, 8), (80 * index, 0, 0)).save(folder / f"{index}.png")
    rows = ["file_name,caption", "0.png,a box", "0.png,a red box", "1.png,a circle", "2.png,a triangle"]
    (folder / "metadata.csv").write_text("\n".join(rows))
    return folder


def described(folder) -> TrainedOn:
    return TrainedOn.of_pairs(str(folder), "train", load_captioned_images(folder))


def test_equal_data_are_told_alike_wherever_they_are_kept(pictures, tmp_path):
    """Nothing depends on the cache of `datasets`, which differs in times and paths, nor on where the folder is."""
    first = described(pictures)
    assert str(first) == f"pictures, split train (4 examples, {first.fingerprint[:8]})"
    shutil.rmtree(tmp_path / "cache")
    assert described(pictures) == first
    shutil.copytree(pictures, tmp_path / "elsewhere" / "pictures")
    assert described(tmp_path / "elsewhere" / "pictures") == first


def test_any_change_of_a_caption_or_a_picture_is_seen(pictures):
    seen = {described(pictures).fingerprint}
    table = (pictures / "metadata.csv").read_text()
    for changed in (table.replace("a circle", "a disc"), table.replace("1.png", "3.png"), table + "\n2.png,more"):
        (pictures / "metadata.csv").write_text(changed)
        if not (pictures / "3.png").exists() and "3.png" in changed:
            shutil.copy(pictures / "2.png", pictures / "3.png")
        seen.add(described(pictures).fingerprint)
    (pictures / "metadata.csv").write_text(table)
    Image.effect_noise((8, 8), 50).save(pictures / "2.png")
    seen.add(described(pictures).fingerprint)
    assert len(seen) == 5


def test_pictures_in_a_table_count_by_their_size(pictures, tmp_path):
    """As data sets of the Hub have them: the bytes stand in the table, and may have no name."""
    kinds = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features({"image": kinds, "captions": datasets.List(datasets.Value("string"))})
    first, second, paths = (
        TrainedOn.of_pairs(
            "user/pictures",
            "train",
            datasets.Dataset.from_dict({"image": images, "captions": [["a"], ["b", "c"]]}, features=features),
        )
        for images in (
            [{"bytes": b"12", "path": None}, {"bytes": b"3", "path": "3.png"}],
            [{"bytes": b"12", "path": None}, {"bytes": b"33", "path": "3.png"}],
            [{"bytes": None, "path": str(pictures / "0.png")}, {"bytes": None, "path": "/no/longer/there.png"}],
        )
    )
    assert first.examples == 3
    assert first.name == "user/pictures, split train"
    assert len({first.fingerprint, second.fingerprint, paths.fingerprint}) == 3


def test_questions_are_told_by_what_they_ask(pictures, tmp_path):
    (tmp_path / "a.csv").write_text("image,question,answer\npictures/0.png,what?,box\npictures/1.png,what?,circle\n")
    (tmp_path / "b.csv").write_text("answer,image,question\nbox,pictures/0.png,what?\ncircle,pictures/1.png,what?\n")
    (tmp_path / "c.csv").write_text("image,question,answer\npictures/0.png,what?,box\npictures/1.png,what?,disc\n")
    first, reordered, other = (
        TrainedOn.of_questions(str(tmp_path / name), read_answered_questions(tmp_path / name))
        for name in ("a.csv", "b.csv", "c.csv")
    )
    assert first.fingerprint == reordered.fingerprint != other.fingerprint
    assert (first.name, first.examples) == ("a.csv", 2)


def test_only_what_is_known_of_both_is_compared(tmp_path):
    for before, now, refused in (
        (TrainedOn(4, "a", "1"), TrainedOn(4, "b", "1"), False),  # the folder was renamed
        (TrainedOn(4, "a", "1"), TrainedOn(4, "a", "2"), True),
        (TrainedOn(4, "a", "1"), TrainedOn(4), False),
        (TrainedOn(4), TrainedOn(5), True),
        (TrainedOn(4), TrainedOn(None), False),
        (TrainedOn(None), TrainedOn(4), False),
    ):
        before.save(tmp_path)
        if refused:
            with pytest.raises(OtherDataError) as error:
                now.refuse_other(tmp_path)
            assert f"{tmp_path} was trained on {before}, and not on {now}; give the same data" in str(error.value)
        else:
            now.refuse_other(tmp_path)
    (tmp_path / "trained_on.json").unlink()
    TrainedOn(4).refuse_other(tmp_path)


@pytest.mark.slow  # interpreters that import torch and transformers
def test_equal_data_are_told_alike_in_every_process(pictures, tmp_path):
    code = "import sys; from test_trained_on import described; from dataclasses import asdict; import json\n"
    code += "print(json.dumps(asdict(described(sys.argv[1]))))"
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "HF_DATASETS_CACHE": str(tmp_path / seed)}
        told = subprocess.run(
            [sys.executable, "-c", code, str(pictures)],
            cwd=os.path.dirname(__file__),
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert TrainedOn(**json.loads(told.splitlines()[-1])) == described(pictures)
