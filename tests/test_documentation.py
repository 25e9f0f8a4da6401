"""Runs what the README shows: python blocks one after the other, and each `vlkd` line of the shell blocks."""

import doctest
import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import torch
from loopback_hub import LoopbackHub
from PIL import Image
from stranger import FORGET_THE_PACKAGE, run
from tiny_sources import save_openai_archive
from transformers import CLIPModel

from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor
from modeling_vlkd.commands.main import main
from modeling_vlkd.evaluation import caption_tokenizers
from modeling_vlkd.evaluation.glue_tasks import TASKS
from modeling_vlkd.miniature.distilling import WEIGHTS, Teachers, assemble
from modeling_vlkd.miniature.report import MAIN_ROWS, markdown_table
from modeling_vlkd.miniature.world import load_train_and_validation
from modeling_vlkd.trainers import answer_accuracy
from modeling_vlkd.trainers.text_classification import new_classifier


ROOT = Path(__file__).parent.parent
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}
# There is neither a Hub in a test nor much time: the miniature's teachers stand for the published ones.
STAND_INS = {
    "num_train_epochs=1,": "max_steps=2,",  # minutes otherwise
    "openai/clip-vit-base-patch16": str(WEIGHTS / "clip"),
    "facebook/bart-large": str(WEIGHTS / "bart"),
    "trainers/recipes": str(ROOT / "trainers" / "recipes"),
}


def blocks(language: str, page: str) -> list[str]:
    """Takes the blocks of a page in one language, with what a test can have in place of what it cannot."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    for name, stand_in in STAND_INS.items():
        found = [block.replace(name, stand_in) for block in found]
    return found


def write_predictions(folder: Path):
    """Leave files for `vlkd evaluate`: answers, captions, and what people said and wrote."""
    said = {1: "a red circle", 2: "a blue box"}
    person = {"image_id": 1, "question_type": "what color", "answer_type": "other"}
    contents = {
        "answers": [{"question_id": 1, "answer": "red"}],
        "annotations": {"annotations": [{"question_id": 1, **person, "answers": [{"answer": "red"}] * 10}]},
        "captions": [{"image_id": image, "caption": text} for image, text in said.items()],
        "references": {
            "images": [{"id": image, "file_name": f"{image}.png"} for image in said],
            "annotations": [{"image_id": image, "caption": text} for image, text in said.items()],
        },
    }
    contents["questions"] = {"questions": [{"question_id": 1, "image_id": 1, "question": "what color is it?"}]}
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    rows = ["vlkd-demo/pictures/1.png,what color is it?,red", "vlkd-demo/pictures/2.png,is it a circle?,yes"]
    (folder / "questions.csv").write_text("\n".join(["image,question,answer", *rows]))
    (folder / "captions.txt").write_text("\n".join(said.values()))
    documents = [{"document": f"here is {text}. it is big.", "summary": text} for text in said.values()]
    (folder / "summaries.jsonl").write_text("\n".join(map(json.dumps, documents)))


def write_classes(folder: Path, pictures: list[Image.Image]):
    """Leave a folder with a subfolder a class."""
    for number, picture in enumerate(pictures):
        (folder / f"class {number % 2}").mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"class {number % 2}" / f"{number}.png")


def write_glue(folder: Path):
    """Leave a task of GLUE to train on, a test split of another, and a classifier for the latter, not trained."""
    for name in ("SST-2", "RTE"):
        (folder / name).mkdir()
    for name in ("train", "dev"):
        (folder / "SST-2" / f"{name}.tsv").write_text("sentence\tlabel\na red circle\t1\na blue circle\t0\n")
    (folder / "RTE" / "test.tsv").write_text("index\tsentence1\tsentence2\n0\ta red circle\ta circle\n")
    new_classifier(str(folder / "vlkd-demo"), TASKS["rte"]).save_pretrained(folder / "my-rte")
    VLKDProcessor.from_pretrained(folder / "vlkd-demo").save_pretrained(folder / "my-rte")


@pytest.fixture(scope="module")
def tour(tmp_path_factory) -> Path:
    """The folder where the README's reader stands after the demo, with `vlkd-demo` and pictures with captions."""
    folder = tmp_path_factory.mktemp("tour")
    model, processor = assemble(Teachers.load(WEIGHTS))
    model.save_pretrained(folder / "vlkd-demo")
    processor.save_pretrained(folder / "vlkd-demo")
    train, _ = load_train_and_validation()
    (folder / "vlkd-demo" / "pictures").mkdir()
    (folder / "my-pictures").mkdir()
    lines = ["file_name,caption"]
    for number in range(8):
        picture = Image.fromarray(train.images[number])
        picture.save(folder / "vlkd-demo" / "pictures" / f"{number}.png")
        picture.save(folder / "my-pictures" / f"{number}.png")
        lines.append(f"{number}.png,{train.scenes[number].captions()[0]}")
    (folder / "my-pictures" / "metadata.csv").write_text("\n".join(lines))
    write_predictions(folder)
    write_classes(folder / "classes", [Image.fromarray(image) for image in train.images[:4]])
    write_glue(folder)
    for name in re.findall(r" (\S+)\.pt\b", "".join(PAGES.values())):  # one tiny archive for each of OpenAI's files
        kind = "resnet" if name.startswith("RN") else "vit"
        save_openai_archive(kind, folder / f"{name}.pt", vocab_size=49_408)  # as CLIP's tokenizer has
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if blocks("python", page)])
def test_python_blocks_run_one_after_the_other(page: str, tour: Path, monkeypatch):
    monkeypatch.chdir(tour)
    monkeypatch.setattr(caption_tokenizers, "java_runs", lambda: False)
    names: dict = {}
    for number, block in enumerate(blocks("python", page)):
        if "trust_remote_code" not in block:  # these need a Hub
            exec(compile(block, f"{page}, python block {number}", "exec"), names)
    if page == "README.md":
        # The first way of asking, by a pipeline, and the last, by `generate()` on the same picture, agree.
        asked = names["answerer"](image="vlkd-demo/pictures/0.png", question=list(names["questions"]))
        assert [best["answer"] for [best] in asked] == names["answers"]
        # Pictures are embedded by CLIP itself, and what was finetuned is what was saved.
        pixels = names["processor"](images=names["picture"], return_tensors="pt")["pixel_values"]
        clip = CLIPModel.from_pretrained(WEIGHTS / "clip").get_image_features(pixel_values=pixels).pooler_output
        torch.testing.assert_close(names["image"], clip)
        part = names["test"].part(0, 100)
        saved = VLKDForConditionalGeneration.from_pretrained("finetuned")
        accuracies = [answer_accuracy(model, names["processor"], part) for model in (saved, names["model"])]
        assert accuracies[0] == accuracies[1] > 0.1  # the miniature BART reads before it sees


SHELL_LINES = [
    pytest.param(line, id=f"{page}: {line}")
    for page in PAGES
    for block in blocks("bash", page)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]
PUSH_LINES = [line.values[0] for line in SHELL_LINES if line.values[0].startswith("vlkd push ")]  # they need a Hub


@pytest.mark.parametrize("line", [line for line in SHELL_LINES if line.values[0] not in PUSH_LINES])
def test_shell_lines_run(line: str, tour: Path, monkeypatch, capsys):
    monkeypatch.chdir(tour)
    monkeypatch.setattr(caption_tokenizers, "java_runs", lambda: False)  # starting it takes seconds
    program, *words = shlex.split(line, comments=True)
    assert program == "vlkd"
    assert main(words) == 0
    assert capsys.readouterr().out.strip()


def test_what_is_pushed_is_loaded_by_a_stranger(tour: Path):
    [block] = [block for block in blocks("python", "README.md") if "trust_remote_code" in block]
    assert PUSH_LINES
    with LoopbackHub({"hf_write": ("alice", "write")}) as hub:
        for line in PUSH_LINES:
            _, *words = shlex.split(line)
            assert "trust_remote_code=True" in run(
                hub, tour, "alice", "-m", "modeling_vlkd.commands.main", *words, token="hf_write"
            )
        run(hub, tour, "stranger", "-c", FORGET_THE_PACKAGE + block)


MODULES = [path.stem for path in sorted((ROOT / "modeling_vlkd").glob("*.py")) if ">>>" in path.read_text()]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name: str, tour: Path):
    module = import_module(f"modeling_vlkd.{name}")
    names = {"checkpoint": str(tour / "vlkd-demo"), "picture": str(tour / "vlkd-demo" / "pictures" / "0.png")}
    tested = doctest.testmod(module, extraglobs=names)
    assert tested.attempted
    assert not tested.failed


def test_make_targets_exist():
    lines = "".join(blocks("console", "README.md"))
    targets = re.findall(r"^make (\S+)", lines, flags=re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == ["demo", "test"]
    assert all(f"\n{target}:" in makefile for target in targets)
    # Both ways of installing take the pinned versions, and what they are given is there.
    assert "pip install --constraint constraints.txt --editable" in lines  # in the clone, else its folder hides it
    assert makefile.count("install $(PINNED)") == 2
    assert (ROOT / "constraints.txt").is_file()


@pytest.mark.parametrize("page", PAGES)
def test_files_and_headings_that_a_page_links_to_exist(page: str):
    folder = ROOT if page == "README.md" else ROOT / "docs"
    for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        if link.startswith("#"):
            headings = re.findall(r"^#+ (.+)$", PAGES[page], flags=re.MULTILINE)
            assert link[1:] in [heading.lower().replace(" ", "-") for heading in headings], link
        elif not link.startswith("https://"):
            assert (folder / link).exists(), link


def test_results_are_those_of_the_recorded_run():
    result = json.loads((ROOT / "docs" / "demo.json").read_text(encoding="utf-8"))
    assert markdown_table(result, MAIN_ROWS) in PAGES["README.md"]
    assert markdown_table(result) in PAGES["results.md"]
