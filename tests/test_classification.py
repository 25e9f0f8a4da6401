"""Zero-shot classification against open_clip's classifier, closed forms, and a model that knows colors."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor

from modeling_vlkd.evaluation.class_files import LabeledPictures, read_templates
from modeling_vlkd.evaluation.classification import CLASSES_AT_ONCE, ClassificationBenchmark, embed_classes
from modeling_vlkd.evaluation.running import run_benchmark
from modeling_vlkd.processing_vlkd import open_image


PAINTS = {
    **{"black": (0, 0, 0), "blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0), "teal": (0, 128, 128)},
    **{"white": (255, 255, 255), "yellow": (255, 255, 0)},
}


class ColorModel:
    """Embeds a picture by its color, and a text by the color that it names; counts the texts."""

    texts = 0

    def look(self, images) -> list[Image.Image]:
        return [open_image(image) for image in images]

    def embed_images(self, images: list[Image.Image]) -> Tensor:
        return torch.stack([self.embed_color(image.getpixel((0, 0))) for image in images])

    def embed_texts(self, texts: list[str]) -> Tensor:
        self.texts += len(texts)
        return torch.stack([self.embed_color(PAINTS[next(c for c in PAINTS if c in text)]) for text in texts])

    @staticmethod
    def embed_color(color: tuple[int, ...]) -> Tensor:
        return torch.tensor(color).float() - 100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One picture of each color, but two of red, one of which is painted teal."""
    for color, paint in PAINTS.items():
        (tmp_path / "pictures" / color).mkdir(parents=True)
        Image.new("RGB", (4, 4), paint).save(tmp_path / "pictures" / color / "0.png")
    Image.new("RGB", (4, 4), PAINTS["teal"]).save(tmp_path / "pictures" / "red" / "1.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("templates", [["a photo of a {}."], "openai"])
@torch.no_grad()
def test_classes_are_embedded_as_open_clip_embeds_them(templates):
    torch.manual_seed(0)
    vision = {"layers": 1, "width": 64, "head_width": 32, "patch_size": 16, "image_size": 32}
    text = {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    clip = open_clip.CLIP(embed_dim=12, vision_cfg=vision, text_cfg=text).eval()
    tokenizer = open_clip.SimpleTokenizer(context_length=24)

    class Texts:
        def embed_texts(self, texts: list[str]) -> Tensor:
            return clip.encode_text(tokenizer(texts))

    templates = read_templates(templates) if templates == "openai" else templates
    names = open_clip.IMAGENET_CLASSNAMES[: CLASSES_AT_ONCE + 2 if len(templates) == 1 else 3]
    expected = open_clip.build_zero_shot_classifier(clip, tokenizer, names, templates).T
    torch.testing.assert_close(embed_classes(Texts(), names, templates), expected, rtol=1e-5, atol=1e-6)


def test_each_template_counts_alike_however_long_its_embedding():
    """Directions (1, 0) and (0, 1), of lengths 5 and 1: the mean points midway."""

    class Texts:
        def embed_texts(self, texts: list[str]) -> Tensor:
            return torch.tensor([[5.0, 0.0] if text.startswith("a") else [0.0, 1.0] for text in texts])

    torch.testing.assert_close(embed_classes(Texts(), ["cat"], ["a {}", "the {}"]), torch.full((1, 2), 0.5**0.5))


def test_a_model_that_knows_colors_errs_where_the_label_does(folder: Path, tmp_path: Path):
    benchmark, model = ClassificationBenchmark.from_files(folder, templates="simple"), ColorModel()
    assert benchmark.ids == [*(f"{color}/0.png" for color in ("black", "blue", "green", "red")), "red/1.png"] + [
        f"{color}/0.png" for color in ("teal", "white", "yellow")
    ]
    rows = run_benchmark(benchmark, model, tmp_path / "run", batch_size=3)
    assert model.texts == 7 * 7  # the classes were embedded once, not for each batch
    assert [row["labels"][0] for row in rows] == ["black", "blue", "green", "red", *["teal"] * 2, "white", "yellow"]
    assert all(len(row["labels"]) == 5 and row["cosines"][0] == pytest.approx(1) for row in rows)
    report = benchmark.report(rows)
    in_five = 1 if "red" in rows[4]["labels"] else 0
    assert report.overall == pytest.approx({"top1": 7 / 8, "top5": (7 + in_five) / 8, "mean_per_class": 6.5 / 7})
    assert report.groups["by_class"]["red"] == pytest.approx({"top1": 0.5, "top5": (1 + in_five) / 2})
    assert report.groups["by_class"]["teal"] == {"top1": 1, "top5": 1}
    assert set(report.groups["by_class"]) == set(PAINTS)
    low, high = report.intervals["top1"]
    assert low < 7 / 8 < high <= 1
    assert report.facts == {"classes": 7, "templates": 7, "first_template": "itap of a {}."}
    wrong = report.scored[4]
    assert (wrong.id, wrong.score, wrong.said, wrong.truth) == ("red/1.png", 0, "teal", ["red"])
    assert wrong.image == str(folder / "red/1.png")
    json.dumps(report.as_dict())


def test_rows_are_counted_by_rank():
    """Of six classes, right at rank 1, 5 and beyond; of five, `top5` would say nothing."""
    labels = list("abcdef")
    pictures = LabeledPictures(labels, [Path(each) for each in labels], labels, "here")
    benchmark = ClassificationBenchmark(pictures, dict(zip(labels, labels)))
    rows = [{"labels": list("abcde")}] * 6
    assert benchmark.report(rows).overall == pytest.approx({"top1": 1 / 6, "top5": 5 / 6, "mean_per_class": 1 / 6})
    few = LabeledPictures(labels[:5], pictures.paths[:5], labels[:5], "here")
    overall = ClassificationBenchmark(few, dict(zip(labels[:5], labels))).report(rows[:5]).overall
    assert set(overall) == {"top1", "mean_per_class"}


def test_of_classes_that_are_equally_near_the_first_is_said(folder: Path):
    class Blind(ColorModel):
        @staticmethod
        def embed_color(color: tuple[int, ...]) -> Tensor:
            return torch.ones(3)

    rows = ClassificationBenchmark.from_files(folder).predict(Blind(), [0, 5])
    assert [row["labels"] for row in rows] == [["black", "blue", "green", "red", "teal"]] * 2


def test_names_are_said_and_labels_are_compared(folder: Path, tmp_path: Path):
    """Two labels may have one name as in ImageNet; the report tells them apart."""
    rows = ["image,label", "red/0.png,n2", "teal/0.png,n1", "red/1.png,n1"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    (tmp_path / "classes.json").write_text(json.dumps({"n1": "teal", "n2": "red"}))
    benchmark = ClassificationBenchmark.from_files(folder, tmp_path / "labels.csv", tmp_path / "classes.json")
    report = benchmark.report(benchmark.predict(ColorModel(), range(3)))
    assert report.overall == {"top1": 1, "mean_per_class": 1}
    assert set(report.groups["by_class"]) == {"teal (n1)", "red (n2)"}
    assert (report.scored[0].said, report.scored[0].truth) == ("red (n2)", ["red (n2)"])


def test_a_row_does_not_depend_on_its_batch(folder: Path):
    benchmark, model = ClassificationBenchmark.from_files(folder), ColorModel()
    together = benchmark.predict(model, benchmark.order())
    for position, row in enumerate(together):
        [alone] = benchmark.predict(model, [position])
        assert alone["labels"] == row["labels"]
        assert alone["cosines"] == pytest.approx(row["cosines"])
    other = ColorModel()
    benchmark.predict(other, [3])
    assert (model.texts, other.texts) == (7, 7)  # each model embeds the classes for itself, once


def test_a_picture_that_cannot_be_read_is_named(folder: Path):
    (folder / "red" / "0.png").write_bytes(b"no picture")
    benchmark = ClassificationBenchmark.from_files(folder)
    with pytest.raises(ValueError, match=r"red/0.png cannot be read .*give a whole picture file"):
        benchmark.predict(ColorModel(), range(8))
