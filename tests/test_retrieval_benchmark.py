"""Retrieval from the official files to the figures, with tiny models; `test_ranking.py` tests the figures."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_training import COLORS, SHAPES, tiny_model, tiny_processor
from torch import Tensor

from modeling_vlkd.evaluation.embeddings import read_embedding, write_embedding
from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.ranking import rank_both_ways, rank_folds
from modeling_vlkd.evaluation.retrieval_benchmark import RetrievalBenchmark
from modeling_vlkd.evaluation.running import run_benchmark
from modeling_vlkd.evaluation.vlkd_model import VLKDAdapter
from modeling_vlkd.processing_vlkd import open_image


PAINTS = {"red": (200, 30, 10), "blue": (10, 20, 220), "green": (30, 160, 40), "teal": (0, 128, 128)}
CAPTIONS = {
    10 + place: [f"A {color} {shape}." for shape in (*SHAPES, "thing", f"{color} box")]
    for place, color in enumerate(COLORS)
}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for image, color in zip(CAPTIONS, COLORS):
        Image.new("RGB", (8, 8), PAINTS[color]).save(folder / f"COCO_val2014_{image:012d}.png")
    return folder


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    images = [{"id": image, "file_name": f"COCO_val2014_{image:012d}.png"} for image in CAPTIONS]
    annotations = [{"id": 0, "image_id": image, "caption": text} for image in CAPTIONS for text in CAPTIONS[image]]
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


@pytest.fixture(scope="module")
def adapter() -> VLKDAdapter:
    processor = tiny_processor()
    return VLKDAdapter(tiny_model(processor).eval(), processor)


class ColorModel:
    """Embeds a picture by its color, and a caption by the color that it names."""

    def look(self, images) -> list[Image.Image]:
        return [open_image(image) for image in images]

    def embed_images(self, images: list[Image.Image]) -> Tensor:
        return torch.stack([self.embed_color(image.getpixel((0, 0))) for image in images])

    def embed_texts(self, texts: list[str]) -> Tensor:
        return torch.stack([self.embed_color(PAINTS[next(c for c in COLORS if c in text)]) for text in texts])

    @staticmethod
    def embed_color(color: tuple[int, ...]) -> Tensor:
        return torch.tensor(color).float() - 100


def test_a_model_that_knows_colors_finds_everything(captions: Path, pictures: Path, tmp_path: Path):
    benchmark = RetrievalBenchmark.from_files(captions, pictures)
    assert benchmark.ids[:5] == ["image 10", "image 11", "image 12", "image 13", "caption 10/0"]
    assert len(benchmark.ids) == 4 + 20
    report = benchmark.report(run_benchmark(benchmark, ColorModel(), tmp_path / "run", batch_size=3), seed=0)
    assert report.overall["mean_recall"] == report.overall["i2t_median_rank"] == 1
    assert report.intervals["t2i_R@1"] == (1, 1)
    assert (report.task, report.examples, report.facts["captions_per_image"]) == ("retrieval", 24, 5)
    by_id = {each.id: each for each in report.scored}
    assert list(by_id) == benchmark.ids
    assert by_id["image 12"].said in by_id["image 12"].truth == CAPTIONS[12]
    caption = by_id["caption 11/2"]
    assert (caption.asked, caption.score) == ("A blue triangle.", 1)
    assert [caption.said] == caption.truth == ["COCO_val2014_000000000011.png"]
    assert Path(caption.image).name == caption.said


def test_figures_are_those_of_the_models_embeddings(captions: Path, pictures: Path, adapter: VLKDAdapter):
    benchmark = RetrievalBenchmark.from_files(captions, pictures, folds=2)
    rows = benchmark.predict(adapter, range(24))
    paths = [pictures / f"COCO_val2014_{image:012d}.png" for image in CAPTIONS]
    images = adapter.embed_images(paths)
    texts = adapter.embed_texts([text for texts in CAPTIONS.values() for text in texts])
    torch.testing.assert_close(torch.stack([read_embedding(row["embedding"]) for row in rows[:4]]), images)
    image_of = torch.arange(4).repeat_interleave(5)
    report = benchmark.report(rows, seed=0)
    assert report.overall == pytest.approx(rank_both_ways(images, texts, image_of).figures())
    assert report.groups == {
        "by_folds": {"mean of 2 folds of 2": pytest.approx(rank_folds(images, texts, image_of, 2))}
    }
    low, high = report.intervals["mean_recall"]
    assert low < report.overall["mean_recall"] < high
    json.dumps(report.as_dict())


def test_a_row_does_not_depend_on_its_batch(captions: Path, pictures: Path, adapter: VLKDAdapter):
    benchmark = RetrievalBenchmark.from_files(captions, pictures)
    order = benchmark.order()
    assert sorted(order) == list(range(24))
    assert order[:4] == [0, 1, 2, 3]
    lengths = [len(benchmark.texts[position - 4]) for position in order[4:]]
    assert lengths == sorted(lengths)
    together = benchmark.predict(adapter, order)
    for position, row in zip(order[1::7], together[1::7]):
        [alone] = benchmark.predict(adapter, [position])
        torch.testing.assert_close(read_embedding(alone["embedding"]), read_embedding(row["embedding"]))


def test_equal_captions_are_tied_though_rounding_differs(pictures: Path):
    """Each picture is as near to the caption of the other as to its own, so each of them is right half of the time."""

    class Rounding(ColorModel):
        def embed_texts(self, texts: list[str]) -> Tensor:
            embeds = super().embed_texts(texts)
            return embeds + 1e-3 * torch.arange(embeds.numel()).view_as(embeds)

    paths = dict.fromkeys((1, 2), pictures / "COCO_val2014_000000000010.png")
    benchmark = RetrievalBenchmark({1: ["A red box."], 2: ["A red box."]}, paths)
    overall = benchmark.report(benchmark.predict(Rounding(), range(4))).overall
    assert overall["i2t_R@1"] == overall["t2i_R@1"] == 0.5
    assert overall["i2t_median_rank"] == overall["t2i_median_rank"] == 1.5


def test_the_first_captions_of_each_picture_are_taken_in_the_order_of_the_file(captions: Path, pictures: Path):
    benchmark = RetrievalBenchmark.from_files(captions, pictures, captions_per_image=2)
    assert benchmark.captions == {image: texts[:2] for image, texts in CAPTIONS.items()}
    assert benchmark.facts == {"pictures": 4, "captions": 8, "captions_per_image": 2}


def test_one_split_of_karpathys_file_is_read(pictures: Path, tmp_path: Path):
    images = [
        {"cocoid": image, "filename": f"COCO_val2014_{image:012d}.png", "split": split, "filepath": "val2014"}
        | {"sentences": [{"raw": text} for text in CAPTIONS[image][:count]]}
        for image, split, count in ((10, "test", 5), (11, "val", 5), (13, "test", 3))
    ]
    path = tmp_path / "dataset_coco.json"
    path.write_text(json.dumps({"images": images}))
    benchmark = RetrievalBenchmark.from_files(path, pictures, split="test")
    assert benchmark.ids[:2] == ["image 10", "image 13"]
    assert benchmark.facts == {"pictures": 2, "captions": 8, "captions_per_image": "3 to 5", "split": "test"}
    with pytest.raises(EvaluationError, match=r"there are not 5 captions of image 13; ask for fewer"):
        RetrievalBenchmark.from_files(path, pictures, split="test", captions_per_image=5)


def break_picture(captions: Path, pictures: Path):
    (pictures / "COCO_val2014_000000000012.png").write_bytes(b"no picture")


def lose_picture(captions: Path, pictures: Path):
    (pictures / "COCO_val2014_000000000012.png").unlink()


def empty_caption(captions: Path, pictures: Path):
    captions.write_text(captions.read_text().replace("A teal box.", " "))


def predict_all(captions: Path, pictures: Path, options: dict) -> list[dict]:
    benchmark = RetrievalBenchmark.from_files(captions, pictures, **options)
    return benchmark.predict(ColorModel(), range(len(benchmark.ids)))


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (break_picture, {}, r"000000000012.png cannot be read .*give a whole picture file"),
        (lose_picture, {}, r"has no file of picture 12 \(COCO_val2014_000000000012.png\)"),
        (empty_caption, {}, "there is an empty caption of image 13; write it"),
        (None, {"captions_per_image": 0}, "Got 0 captions a picture; give 1 or more"),
        (None, {"captions_per_image": 6}, "there are not 6 captions of images 10, 11, 12, 13; ask for fewer"),
        (None, {"folds": 3}, "4 pictures make no 3 folds of one size"),
        (None, {"split": "test"}, "has no splits, so no 'test'"),
    ],
)
def test_bad_input_is_one_clear_line(captions: Path, pictures: Path, spoil, options: dict, message: str):
    if spoil is not None:
        spoil(captions, pictures)
    with pytest.raises(ValueError, match=message):  # of which EvaluationError is one
        predict_all(captions, pictures, options)


def test_embeddings_of_two_models_are_refused(captions: Path, pictures: Path):
    benchmark = RetrievalBenchmark.from_files(captions, pictures)
    rows = benchmark.predict(ColorModel(), range(24))
    with pytest.raises(EvaluationError, match="different numbers of dimensions"):
        benchmark.report([*rows[:-1], {"embedding": write_embedding(torch.ones(7))}])
    shorter = [{"embedding": write_embedding(torch.ones(7))}] * 20
    with pytest.raises(EvaluationError, match=r"4 pictures of .3,. numbers and 20 captions of .7,."):
        benchmark.report([*rows[:4], *shorter])
