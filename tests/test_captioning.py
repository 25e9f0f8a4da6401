"""Captioning of COCO and NoCaps with any model."""

from pathlib import Path

import pytest
from PIL import Image

from modeling_vlkd.evaluation.caption_files import CaptionReferences
from modeling_vlkd.evaluation.caption_metrics import score_captions
from modeling_vlkd.evaluation.caption_tokenizers import PYTHON_TOKENIZER
from modeling_vlkd.evaluation.captioning import CaptioningBenchmark, evaluate_captions
from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.protocol import Caption
from modeling_vlkd.evaluation.shown_pictures import ShownPictures


CAPTIONS = {4: "a dog runs on sand", 2: "two men ride horses", 3: "a red bus stops", 1: "a cat sleeps"}
REFERENCES = {
    1: ["a cat sleeps on a bed", "a cat"],
    2: ["two men ride on horses"],
    3: ["a red bus stops", "the bus stops"],
    4: ["a dog runs on sand"],
}


def test_captions_are_scored_by_the_official_metrics():
    result = evaluate_captions(CAPTIONS, CaptionReferences(REFERENCES, {}), PYTHON_TOKENIZER)
    scores = score_captions(CAPTIONS, REFERENCES, PYTHON_TOKENIZER)
    assert (result.overall, result.each, result.tokenizer) == (scores.overall, scores.each, PYTHON_TOKENIZER)
    assert result.by_domain is None


def test_each_domain_of_nocaps_is_scored_by_itself():
    domains = {1: "in-domain", 2: "out-domain", 3: "in-domain", 4: "out-domain"}
    result = evaluate_captions(CAPTIONS, CaptionReferences(REFERENCES, {}, domains), PYTHON_TOKENIZER)
    assert list(result.by_domain) == ["in-domain", "out-domain", "entire"]  # none is near
    for name, images in {"in-domain": (3, 1), "out-domain": (4, 2), "entire": (4, 2, 3, 1)}.items():
        alone = score_captions(
            {image: CAPTIONS[image] for image in images},
            {image: REFERENCES[image] for image in images},
            PYTHON_TOKENIZER,
        )
        assert result.by_domain[name] == alone.overall
    assert result.overall == result.by_domain["entire"]
    assert set(result.each) == set(CAPTIONS)


def test_captions_of_other_pictures_are_not_scored():
    with pytest.raises(
        EvaluationError, match="the references: there is no caption in the set of captions for image 4;"
    ):
        evaluate_captions({1: "a", 2: "b", 3: "c"}, CaptionReferences(REFERENCES, {}))


class Narrator:
    """Says of each picture how red and how green it is, which is its id."""

    def look(self, images):
        return [Image.open(path).getpixel((0, 0)) for path in images]

    def caption(self, images):
        return [Caption(f"a picture with {red} and {green}", 0.25) for red, green, _ in images]


@pytest.fixture
def benchmark(tmp_path: Path) -> CaptioningBenchmark:
    files = {image: tmp_path / f"{image}.png" for image in REFERENCES}
    for image, path in files.items():
        Image.new("RGB", (4, 4), (7, image, 0)).save(path)
    return CaptioningBenchmark(CaptionReferences(REFERENCES, {}), ShownPictures(files))


def test_a_benchmark_captions_each_picture_and_reports_the_official_metrics(benchmark, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # without Java, which takes seconds
    rows = benchmark.predict(Narrator(), [3, 0])
    assert rows[0] == {"caption": "a picture with 7 and 4", "score": 0.25}
    assert rows[1]["caption"] == "a picture with 7 and 1"
    captions = [{"caption": CAPTIONS[image]} for image in benchmark.ids]
    report, scores = benchmark.report(captions, 0), score_captions(CAPTIONS, REFERENCES, PYTHON_TOKENIZER)
    assert report.overall == scores.overall
    assert {each.id: each.said for each in report.scored} == CAPTIONS
    best = max(report.scored, key=lambda each: each.score)
    assert (best.score, best.truth) == (pytest.approx(scores.each[best.id]["CIDEr"] / 10), REFERENCES[best.id])
    assert best.image == str(benchmark.shown.files[best.id])


def test_a_benchmark_needs_every_picture_and_something_to_see(benchmark):
    files = dict(benchmark.shown.files)
    with pytest.raises(EvaluationError, match="Without a picture there is nothing to caption"):
        CaptioningBenchmark(benchmark.references, ShownPictures(files, "none"))
    del files[2], files[4]
    with pytest.raises(EvaluationError, match="there is no file of pictures 2, 4; give the folder"):
        CaptioningBenchmark(benchmark.references, ShownPictures(files))
