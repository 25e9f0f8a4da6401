import ast
import base64
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GenerationConfig, pipeline
from transformers.pipelines.pt_utils import KeyDataset

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
    """Drop the scores, which differ in the last digit between batch sizes."""
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
    by_question = [row[place] for place in range(len(questions)) for row in expected]
    assert only_texts(answerer(image=pictures, question=questions, batch_size=batch_size)) == by_question


def test_data_sets_are_read_one_by_one(answerer, captioner, pictures):
    rows = {"image": pictures, "question": ["why?", "who?", "what is it?"]}
    features = datasets.Features({"image": datasets.Image(), "question": datasets.Value("string")})
    data = datasets.Dataset.from_dict(rows, features=features)
    expected = [only_texts(answerer(image=p, question=q)) for p, q in zip(*rows.values())]
    assert only_texts(list(answerer(data))) == expected
    assert only_texts(list(answerer(data.to_iterable_dataset(), batch_size=2))) == expected
    same = [only_texts(answerer(image=picture, question="why?")) for picture in pictures]
    for images in (KeyDataset(data, "image"), data["image"]):
        assert only_texts(answerer(image=images, question="why?", batch_size=2)) == same
        assert only_texts(list(captioner(images))) == only_texts(captioner(pictures))


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
    encoded = base64.b64encode((tmp_path / "0.png").read_bytes()).decode()
    assert answerer(image=f"data:image/png;base64,{encoded}", question="why?") == answer
    with pytest.raises(ValueError, match=r"^Image data:image/png;base64,no cannot be read"):
        answerer(image="data:image/png;base64,no", question="why?")
    assert only_texts(answer) == only_texts(answerer(image=pictures[0], question="why?"))


def test_one_picture_with_many_questions_is_seen_once(answerer, pictures, monkeypatch):
    seen = []
    rows_of = answerer.model.get_image_rows
    monkeypatch.setattr(
        answerer.model, "get_image_rows", lambda pixels: seen.append(len(pixels)) or rows_of(pixels), raising=True
    )
    answerer(image=pictures[0], question=["why?", "who?", "what is it?"])
    assert seen == [1]


def test_no_picture_gives_no_answer(answerer, captioner):
    assert answerer([]) == answerer(image=[], question="why?") == captioner([]) == []


def test_top_k_and_generation_arguments(answerer, pictures):
    assert len(answerer(image=pictures[0], question="why?", top_k=3)) == 3
    answerer(image=pictures[0], question="why?", num_beams=1, max_new_tokens=3, num_masks=1)
    config = GenerationConfig(num_beams=2, max_new_tokens=3)
    best, second = answerer(image=pictures[0], question="why?", generation_config=config, top_k=2)
    assert best["score"] > second["score"]
    [again] = answerer(image=pictures[0], question="why?", num_beams=2, max_new_tokens=3)
    assert again == pytest.approx(best)
    with pytest.raises(ValueError, match="num_beam'"):
        answerer(image=pictures[0], question="why?", num_beam=2)


def test_long_questions_are_refused_or_cut(answerer, pictures):
    long = "is it red or blue or green? " * 10
    with pytest.raises(ValueError, match="the model reads at most 64; shorten it, or pass truncation=True"):
        answerer(image=pictures[0], question=long)
    [answer] = answerer(image=pictures[0], question=long, truncation=True, padding=True)
    shortened = answerer.shorten(long)
    assert long.startswith(shortened)
    assert len(shortened) > 28
    assert answerer(image=pictures[0], question=shortened) == [answer]
    assert answerer(image=pictures[0], question="why?", truncation=True) == answerer(pictures[0], "why?")


def test_dtype_and_device_map(tiny_checkpoint: Path, pictures):
    half = pipeline("vqa", model=str(tiny_checkpoint), dtype=torch.bfloat16, device_map="auto")
    assert half.model.dtype is torch.bfloat16
    assert half(image=pictures[0], question="why?")[0]["score"] <= 1


def chat(picture: Image.Image | None, text: str = "") -> list[dict]:
    content = [{"type": "image", "image": picture}] if picture else []
    return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]


def test_image_text_to_text_chats(tiny_checkpoint: Path, pictures, monkeypatch):
    """A message is a question, or without text a request for a caption; the reply is only the answer or caption."""
    talker = pipeline("image-text-to-text", model=str(tiny_checkpoint))
    processor = talker.processor
    texts = ["what is it? Answer: a box.", "A picture of a box.", "a box."]
    written = processor.tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]
    seen = []

    def generate(input_ids, pixel_values=None, **kwargs):
        seen.append((processor.batch_decode(input_ids, skip_special_tokens=False), pixel_values))
        return written[len(seen) - 1 : len(seen)]

    chats = [chat(pictures[0], "what is it?"), chat(pictures[1]), chat(None, "who?")]
    with monkeypatch.context() as patch:
        patch.setattr(talker.model, "generate", generate)
        replies = talker(text=chats, return_full_text=False)
    assert [reply[0]["generated_text"] for reply in replies] == ["a box", "a box", "a box."]
    prompts = ["what is it? Answer:<mask><mask>.", "A picture of<mask><mask><mask>.", "who? Answer:<mask><mask>."]
    assert [texts for texts, _ in seen] == [[f"<s>{prompt}</s>"] for prompt in prompts]
    for picture, (_, pixels) in zip(pictures[:2], seen):
        assert torch.equal(pixels, processor(images=picture, return_tensors="pt")["pixel_values"])
    assert seen[2][1] is None

    one_by_one = [talker(text=each, return_full_text=False)[0] for each in chats[:2]]
    together = talker(text=chats[:2], batch_size=2, return_full_text=False)
    assert [[reply] for reply in one_by_one] == together
    conversation = talker(text=chats[0])[0]["generated_text"]
    assert conversation[-1] == {"role": "assistant", "content": one_by_one[0]["generated_text"]}


def test_image_text_to_text_prompts(tiny_checkpoint: Path, pictures):
    talker = pipeline("image-text-to-text", model=str(tiny_checkpoint))
    processor = talker.processor
    prompts = processor.question_prompts(["what is it?", "why?"])
    replies = talker(images=pictures[:2], text=prompts, return_full_text=False)
    inputs = processor(images=pictures[:2], text=prompts, return_tensors="pt")
    expected = processor.post_process_image_text_to_text(talker.model.generate(**inputs))
    assert [reply["generated_text"] for reply in replies] == expected
    [full] = talker(images=pictures[0], text=prompts[0])
    assert full["generated_text"] == prompts[0] + expected[0]


def test_text_classification(tiny_checkpoint: Path):
    [result] = pipeline("text-classification", model=str(tiny_checkpoint))("a red circle")
    assert result["label"] in ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize("batch_size", [1, 2])
def test_captions(captioner, pictures, batch_size: int):
    results = captioner(pictures, batch_size=batch_size)
    assert [set(each[0]) for each in results] == [{"caption", "score"}] * len(pictures)
    assert only_texts(results) == [only_texts(captioner(picture)) for picture in pictures]


def test_captions_are_sampled_on_request(captioner, pictures):
    torch.manual_seed(0)
    results = captioner(pictures, num_return_sequences=6, do_sample=True)
    for each in results:
        assert len(each) == 6
        assert len({caption["caption"] for caption in each}) > 1
        scores = [caption["score"] for caption in each]
        assert scores == sorted(scores, reverse=True)


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


@pytest.mark.parametrize("image", [b"GIF89a", np.zeros((4, 4, 3), dtype=np.uint8)])
def test_raw_bytes_and_arrays_are_refused(captioner, image):
    with pytest.raises(
        ValueError, match=f"Expected an image as a path, a URL or a PIL image, got {type(image).__name__}"
    ):
        captioner(image)


CLASSES_BY_AUTO_CLASS = {
    "Config": "VLKDConfig",
    "Model": "VLKDModel",
    "ModelForImageTextToText": "VLKDForConditionalGeneration",
    "ModelForVisualQuestionAnswering": "VLKDForConditionalGeneration",
    "ModelForSeq2SeqLM": "VLKDForConditionalGeneration",
    "ModelForSequenceClassification": "VLKDForSequenceClassification",
    "ModelForZeroShotImageClassification": "VLKDForZeroShotImageClassification",
    "Processor": "VLKDProcessor",
    "ImageProcessor": "VLKDImageProcessor",
    "Tokenizer": "RobertaTokenizer",
}
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
import transformers
from PIL import Image
from transformers import AutoModel, pipeline
for name in {auto_classes}:
    loaded = getattr(transformers, "Auto" + name).from_pretrained("{checkpoint}", trust_remote_code=True)
    print(name, type(loaded).__name__, type(loaded).__module__.split(".")[0])
talker = pipeline("image-text-to-text", model="{checkpoint}", trust_remote_code=True)
content = [dict(type="image", image=Image.new("RGB", (40, 50), "red")), dict(type="text", text="what is it?")]
print(talker(text=[dict(role="user", content=content)], return_full_text=False)[0]["generated_text"])
classifier = pipeline("zero-shot-image-classification", model="{checkpoint}", trust_remote_code=True)
print(classifier(Image.new("RGB", (40, 50), "red"), candidate_labels=["box", "circle"]))
answerer = pipeline("visual-question-answering", model="{checkpoint}", trust_remote_code=True)
print(type(answerer).__name__, answerer(image=Image.new("RGB", (40, 50), "red"), question="what is it?"))
answerer.model.save_pretrained("{again}")
answerer.processor.save_pretrained("{again}")
print(type(AutoModel.from_pretrained("{again}", trust_remote_code=True)).__module__.split(".")[0])
"""


def test_loads_with_trust_and_without_the_package(tiny_checkpoint: Path, answerer, tmp_path: Path, monkeypatch):
    """As on the Hub, the folder contains its code. What that code saves can be loaded in the same way."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    code = WITHOUT_THE_PACKAGE.format(
        root=Path(__file__).parent.parent,
        checkpoint=tiny_checkpoint,
        again=tmp_path / "again",
        auto_classes=list(CLASSES_BY_AUTO_CLASS),
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    expected = answerer(image=Image.new("RGB", (40, 50), "red"), question="what is it?")
    classifier = pipeline("zero-shot-image-classification", model=str(tiny_checkpoint))
    classes = classifier(Image.new("RGB", (40, 50), "red"), candidate_labels=["box", "circle"])
    *loaded, reply, found, first, second = result.stdout.splitlines()
    assert [line.split() for line in loaded] == [
        [name, of_class, "transformers" if name == "Tokenizer" else "transformers_modules"]
        for name, of_class in CLASSES_BY_AUTO_CLASS.items()
    ]
    assert reply  # to the chat about the picture
    assert [each["label"] for each in ast.literal_eval(found)] == [each["label"] for each in classes]
    assert ast.literal_eval(found)[0]["score"] == pytest.approx(classes[0]["score"], rel=1e-3)
    assert "not supported" not in result.stderr
    name, _, answers = first.partition(" ")
    assert name == "VLKDVisualQuestionAnsweringPipeline"
    [told], [wanted] = ast.literal_eval(answers), expected
    assert (told["answer"], told["score"]) == (wanted["answer"], pytest.approx(wanted["score"], rel=1e-3))
    assert second == "transformers_modules"
    code_files = {path.name for path in Path(modeling_vlkd.__file__).parent.glob("*_vlkd.py")}
    assert code_files <= {path.name for path in (tmp_path / "again").iterdir()}
