import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

import modeling_vlkd


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (40, 50, 3), dtype=np.uint8)) for _ in range(3)]


@pytest.fixture(scope="module")
def answerer(tiny_checkpoint: Path):
    return pipeline("visual-question-answering", model=str(tiny_checkpoint))


@pytest.fixture(scope="module")
def captioner(tiny_checkpoint: Path):
    return pipeline("image-captioning", model=str(tiny_checkpoint))


def only_texts(results) -> list:
    """Drops scores, which differ in the last digit between batch sizes."""
    if isinstance(results, dict):
        return results.get("answer", results.get("caption"))
    return [only_texts(each) for each in results]


def test_one_question(answerer, pictures):
    [result] = answerer(image=pictures[0], question="what color is it?")
    assert set(result) == {"answer", "score"}
    assert 0 < result["score"] <= 1


@pytest.mark.parametrize("batch_size", [1, 2])
def test_every_way_to_ask_gives_the_same_answers(answerer, pictures, tmp_path, batch_size: int):
    questions = ["what color is the shape?", "why?"]
    expected = [[only_texts(answerer(image=picture, question=q)) for q in questions] for picture in pictures]
    first = [row[0] for row in expected]
    pairs = [{"image": picture, "question": questions[0]} for picture in pictures]
    paths = [tmp_path / f"{place}.png" for place in range(len(pictures))]
    for picture, path in zip(pictures, paths):
        picture.save(path)

    assert only_texts(answerer(pairs, batch_size=batch_size)) == first
    assert only_texts(list(answerer((pair for pair in pairs), batch_size=batch_size))) == first
    assert only_texts(answerer(image=pictures, question=questions[0], batch_size=batch_size)) == first
    assert only_texts(answerer(image=[str(path) for path in paths], question=questions[0])) == first
    assert only_texts(answerer(image=paths[0], question=questions[0])) == first[0]
    assert only_texts(answerer(image=pictures[0], question=questions)) == expected[0]
    assert only_texts(answerer({"image": pictures[0], "question": questions})) == expected[0]
    flat = [answer for row in expected for answer in row]
    assert only_texts(answerer(image=pictures, question=questions, batch_size=batch_size)) == flat


def test_pictures_come_from_urls_too(answerer, pictures, tmp_path):
    pictures[0].save(tmp_path / "0.png")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        answer = answerer(image=f"{url}/0.png", question="why?", timeout=30)
        with pytest.raises(ValueError, match=r"1\.png cannot be read"):
            answerer(image=f"{url}/1.png", question="why?")
        server.shutdown()
    assert only_texts(answer) == only_texts(answerer(image=pictures[0], question="why?"))


def test_one_picture_with_many_questions_is_seen_once(answerer, pictures, monkeypatch):
    seen = []
    rows_of = answerer.model.get_image_rows
    monkeypatch.setattr(
        answerer.model, "get_image_rows", lambda pixels: seen.append(len(pixels)) or rows_of(pixels), raising=True
    )
    answerer(image=pictures[0], question=["why?", "who?", "what is it?"])
    assert seen == [1]


def test_top_k_and_generation_arguments(answerer, pictures):
    assert len(answerer(image=pictures[0], question="why?", top_k=3)) == 3
    answerer(image=pictures[0], question="why?", num_beams=1, max_new_tokens=3, num_masks=1)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_captions(captioner, pictures, batch_size: int):
    results = captioner(pictures, batch_size=batch_size)
    assert [set(each[0]) for each in results] == [{"caption", "score"}] * len(pictures)
    assert only_texts(results) == [only_texts(captioner(picture)) for picture in pictures]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": Image.new("RGB", (4, 4)), "question": ""}, "Question 0 is ''"),
        ({"image": {"picture": 1}}, "Expected"),
        ({"image": Image.new("RGB", (4, 4)), "question": "why?", "top_k": 0}, "top_k=0"),
        ({"image": "no/such.png", "question": "why?"}, "does not exist"),
    ],
)
def test_wrong_input_is_named(answerer, arguments: dict, message: str):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        answerer(**arguments)


WITHOUT_THE_PACKAGE = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
sys.path = [path for path in sys.path if not path.endswith("{root}")]
try:
    import modeling_vlkd
except ImportError:
    pass
else:
    sys.exit("the package is still importable")
from PIL import Image
from transformers import AutoModel, AutoModelForSequenceClassification, pipeline
answerer = pipeline("visual-question-answering", model="{checkpoint}", trust_remote_code=True)
print(type(answerer).__name__, answerer(image=Image.new("RGB", (40, 50), "red"), question="what is it?"))
answerer.model.save_pretrained("{again}")
answerer.processor.save_pretrained("{again}")
print(type(AutoModel.from_pretrained("{again}", trust_remote_code=True)).__module__.split(".")[0])
"""


def test_loads_with_trust_and_without_the_package(tiny_checkpoint: Path, answerer, tmp_path: Path, monkeypatch):
    """As from the Hub: the folder brings its code. What that code saves can be loaded and trusted in turn."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    code = WITHOUT_THE_PACKAGE.format(
        root=Path(__file__).parent.parent, checkpoint=tiny_checkpoint, again=tmp_path / "again"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    expected = answerer(image=Image.new("RGB", (40, 50), "red"), question="what is it?")
    first, second = result.stdout.splitlines()
    assert first == f"VLKDVisualQuestionAnsweringPipeline {expected}"
    assert second == "transformers_modules"
    code_files = {path.name for path in Path(modeling_vlkd.__file__).parent.glob("*_vlkd.py")}
    assert code_files <= {path.name for path in (tmp_path / "again").iterdir()}
