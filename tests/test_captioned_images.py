import csv
import json
import logging

import datasets
import numpy as np
import pytest
from PIL import Image

from modeling_vlkd.trainers.captioned_images import hold_back, load_captioned_images, open_row


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets_cache"))
    datasets.disable_progress_bars()


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, color in (("a.png", "red"), ("b.jpg", "blue"), ("c.png", "teal")):
        Image.new("RGB", (10, 8), color).save(folder / name)
    return folder


def write_csv(folder, rows, header=("file_name", "caption")):
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


ROWS = [("a.png", "a red box"), ("b.jpg", "a  blue\nbox"), ("c.png", "a teal box")]
CAPTIONS = [["a red box"], ["a blue box"], ["a teal box"]]


def test_a_folder_with_a_table_of_captions(pictures):
    write_csv(pictures, ROWS)
    dataset = load_captioned_images(pictures)
    assert dataset.column_names == ["image", "captions"]
    assert dataset["captions"][:] == CAPTIONS
    pixels = [np.asarray(open_row(dataset, row))[0, 0] for row in range(3)]
    np.testing.assert_allclose(pixels, [[255, 0, 0], [0, 0, 255], [0, 128, 128]], atol=2)  # JPEG is not exact


def test_a_folder_with_several_captions_a_picture(pictures):
    lines = [{"file_name": name, "captions": [caption, "a box"]} for name, caption in ROWS]
    (pictures / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert load_captioned_images(pictures)["captions"][0] == ["a red box", "a box"]


def test_a_picture_that_the_table_names_twice_is_one_with_two_captions(pictures):
    write_csv(pictures, [*ROWS, ("a.png", "something red"), ("c.png", "something teal")])
    dataset = load_captioned_images(pictures)
    expected = [["a red box", "something red"], ["a blue box"], ["a teal box", "something teal"]]
    assert dataset["captions"][:] == expected
    assert np.asarray(open_row(dataset, 2))[0, 0].tolist() == [0, 128, 128]


def as_dataset(pictures):
    columns = {"picture": [str(pictures / name) for name, _ in ROWS], "text": [caption for _, caption in ROWS]}
    return datasets.Dataset.from_dict(columns).cast_column("picture", datasets.Image())


def test_parquet_and_saved_data_sets_and_splits(pictures, tmp_path):
    dataset = as_dataset(pictures)
    dataset.to_parquet(tmp_path / "table.parquet")
    dataset.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"validation": dataset}).save_to_disk(tmp_path / "splits")
    for source in ("table.parquet", "saved"):
        loaded = load_captioned_images(tmp_path / source)
        assert loaded["captions"][:] == CAPTIONS
        assert open_row(loaded, 2).size == (10, 8)
    assert len(load_captioned_images(tmp_path / "splits", split="validation")) == 3
    with pytest.raises(ValueError, match="no split 'train'; it has validation"):
        load_captioned_images(tmp_path / "splits")


def test_columns_can_be_named(pictures):
    rows = [(name, "no", caption) for name, caption in ROWS]
    write_csv(pictures, rows, header=("file_name", "text", "description"))
    assert load_captioned_images(pictures, caption_column="description")["captions"][:] == CAPTIONS
    with pytest.raises(ValueError, match="no column 'legend'; it has image, text, description"):
        load_captioned_images(pictures, caption_column="legend")


def test_what_is_wrong_is_said_in_one_line(pictures, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_captioned_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"has no captions: put a metadata\.csv"):
        load_captioned_images(pictures)
    write_csv(pictures, [(name, f"{caption}", "x") for name, caption in ROWS], header=("file_name", "left", "right"))
    with pytest.raises(ValueError, match="no column that is clearly of captions"):
        load_captioned_images(pictures)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match="neither a folder nor a parquet file"):
        load_captioned_images(tmp_path / "notes.txt")
    datasets.Dataset.from_dict({"caption": ["a red box"]}).save_to_disk(tmp_path / "blind")
    with pytest.raises(ValueError, match="no column of images among caption"):
        load_captioned_images(tmp_path / "blind")


TABLES = {
    "empty": ("metadata.csv", "", "metadata.csv cannot be read (No columns to parse"),
    "quote": (
        "metadata.csv",
        'file_name,caption\na.png,"a red box\n',
        "metadata.csv cannot be read (Error tokenizing",
    ),
    "comma": ("metadata.csv", "file_name,caption\na.png,a\nb.jpg,big, blue\n", "Expected 2 fields in line 3, saw 3"),
    "column": (
        "metadata.csv",
        "name,caption\na.png,a red box\n",
        "has no column 'file_name'; it has name, caption; it needs",
    ),
    "json": (
        "metadata.jsonl",
        '{"file_name": "a.png", "caption"\n',
        "metadata.jsonl cannot be read (JSON parse error",
    ),
    "semicolons": (
        "metadata.csv",
        "file_name;caption\na.png;a red box, big\n",
        "it has file_name, caption, separated by ';': separate them by commas; it needs",
    ),
    "tabs": ("metadata.csv", "file_name\tcaption\na.png\ta\n", "it has file_name, caption, separated by tabs"),
    "keys": (
        "metadata.jsonl",
        '{"name": "a.png", "caption": "a"}\n',
        "has no column 'file_name'; it has name, caption",
    ),
    "no json": ("metadata.jsonl", "", "metadata.jsonl cannot be read ("),
    "parquet of captions": ("metadata.parquet", "12345", "metadata.parquet cannot be read ("),
    "parquet": ("../table.parquet", "12345", "table.parquet cannot be read (Parquet file size is 5 bytes"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_cannot_be_read_is_named_with_a_remedy(case, pictures):
    name, content, message = TABLES[case]
    (pictures / name).write_text(content)
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    logging.getLogger("datasets").addHandler(handler)
    with pytest.raises(ValueError) as caught:
        load_captioned_images(pictures / name if case == "parquet" else pictures)
    logging.getLogger("datasets").removeHandler(handler)
    assert heard == []  # `datasets` would say some of it before
    assert message in str(caught.value)
    assert "give whole parquet files." in str(caught.value) or "quotes around a caption" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_of_a_header_alone_names_no_pictures(pictures):
    write_csv(pictures, [])
    with pytest.raises(ValueError, match=r"metadata\.csv names no pictures: it ends after its first line\.$"):
        load_captioned_images(pictures)


def test_columns_named_the_wrong_way_round_are_said(pictures):
    write_csv(pictures, ROWS)
    with pytest.raises(
        ValueError, match=r"^Row 0 of .* has a caption that is no text \(.*\); is it the right column\?"
    ):
        load_captioned_images(pictures, caption_column="image")
    with pytest.raises(ValueError, match=r"Row 0 of the data set: Image a red box does not exist"):
        open_row(load_captioned_images(pictures, image_column="caption"), 0)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_table_in_another_encoding_is_named_with_the_line(name, pictures):
    csv_lines = "file_name,caption\na.png,a box\nb.jpg,une bo\xeete\n"
    json_lines = '{"file_name": "c.png", "caption": "a"}\n{"file_name": "a.png", "caption": "b"}\n'
    json_lines += '{"file_name": "b.jpg", "caption": "une bo\xeete"}\n'
    (pictures / name).write_text(csv_lines if name.endswith("csv") else json_lines, encoding="latin-1")
    with pytest.raises(ValueError, match=rf"^Line 3 of .*{name} is not UTF-8 \(.*\); save the file again as UTF-8\.$"):
        load_captioned_images(pictures)


def test_captions_that_are_numbers_become_texts(pictures):
    write_csv(pictures, [("a.png", 1), ("b.jpg", 22), ("c.png", 3)])
    assert load_captioned_images(pictures)["captions"][:] == [["1"], ["22"], ["3"]]


@pytest.mark.parametrize("gap", ["", "NA", "None"])
def test_a_gap_among_captions_that_are_numbers_is_named_by_its_row(gap, pictures):
    write_csv(pictures, [("a.png", 1.5), ("b.jpg", gap), ("c.png", 3)])
    with pytest.raises(ValueError, match=r"^Row 1 of .* has an empty caption \((None|nan)\); fill it in or leave"):
        load_captioned_images(pictures)


def test_labels_are_captions_by_their_names(pictures, tmp_path):
    label = datasets.ClassLabel(names=["a red box", "a teal box"])
    dataset = as_dataset(pictures).remove_columns("text").add_column("label", [0, 1, 1]).cast_column("label", label)
    dataset.save_to_disk(tmp_path / "saved")
    captions = load_captioned_images(tmp_path / "saved", caption_column="label")["captions"]
    assert captions[:] == [["a red box"], ["a teal box"], ["a teal box"]]


@pytest.mark.parametrize("name", ["nosuch/", "nosuchfolder", "no/such/folder"])
def test_what_can_be_no_hub_id_is_not_looked_for_on_the_hub(name, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", None)
    with pytest.raises(FileNotFoundError, match=f"{name} does not exist; give a folder"):
        load_captioned_images(name)


def test_what_could_be_a_hub_id_is_said_to_be_no_folder(monkeypatch):
    def unreachable(name):
        raise ConnectionError(f"Couldn't reach {name!r} on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(ValueError, match=r"no/such cannot be read \(Couldn't reach .*\); it is no folder here"):
        load_captioned_images("no/such")


def test_an_empty_caption_is_named_by_its_row(pictures):
    write_csv(pictures, [ROWS[0], ("b.jpg", "  "), ROWS[2]])
    with pytest.raises(ValueError, match=r"Row 1 of .* has an empty caption"):
        load_captioned_images(pictures)


def test_a_broken_picture_is_named_by_its_row(pictures):
    write_csv(pictures, ROWS)
    (pictures / "b.jpg").write_bytes(b"no picture")
    dataset = load_captioned_images(pictures)
    with pytest.raises(ValueError, match=r"Row 1 of the data set: .*b\.jpg"):
        open_row(dataset, 1)


def test_pictures_are_held_back_by_the_seed():
    pictures = datasets.Dataset.from_dict({"image": [str(number) for number in range(100)]})
    kept, held = hold_back(pictures, None, seed=0)
    assert len(held) == 5
    assert sorted([*kept["image"], *held["image"]]) == sorted(pictures["image"])
    again, other = (list(hold_back(pictures, None, seed=seed)[1]["image"]) for seed in (0, 1))
    assert list(held["image"]) == again != other
    assert len(hold_back(pictures, 30, seed=0)[1]) == 30
    for few, count in ((pictures, 0), (pictures.select(range(19)), None)):
        assert hold_back(few, count, seed=0) == (few, None)
    for count in (-1, 100):
        with pytest.raises(ValueError, match=f"hold_back={count}: give 0 to 99, for there are 100 pictures"):
            hold_back(pictures, count, seed=0)
