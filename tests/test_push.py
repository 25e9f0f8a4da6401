"""Pushing by `vlkd push`, `push_to_hub` and the trainers to a Hub on loopback. Other processes, which know nothing but
that Hub, load what was pushed, with the package and without it.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from loopback_git import Repo
from loopback_http import Fault
from loopback_hub import LoopbackHub
from PIL import Image
from stranger import FORGET_THE_PACKAGE, run
from tiny_card import shareable_copy
from transformers import pipeline

from modeling_vlkd.commands.push import summary
from modeling_vlkd.publishing.publish import Published
from modeling_vlkd.publishing.shareable import Shareable


QUESTIONS = ["what color is the shape?", "why?"]
CLASSES = ["box", "circle"]
# The code by which each process reports what the model answers and its logits, which show that it is the same model.
ASK = """
import json, sys
import torch
from PIL import Image
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, pipeline

told = {}

picture = Image.open("picture.png")

def logits(model, processor):
    inputs = processor(images=[picture], text=QUESTIONS[:1], return_tensors="pt")
    return model(**inputs).logits[0, -1, :8].tolist()

def ask(name, **where):
    answerer = pipeline("visual-question-answering", model=name, **where)
    return {
        "answers": [answerer(image=picture, question=question) for question in QUESTIONS],
        "logits": logits(answerer.model, answerer.processor),
        "class": type(answerer.model).__module__.partition(".")[0],
    }

def tell():
    json.dump(told, open(sys.argv[1], "w"))
"""
ASK = f"QUESTIONS = {QUESTIONS!r}\nCLASSES = {CLASSES!r}\n{ASK}"


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub({"hf_write": ("alice", "write"), "hf_read": ("alice", "read")}) as hub:
        yield hub


@pytest.fixture(scope="module")
def place(tiny_checkpoint: Path, tmp_path_factory) -> Path:
    """Make the folder in which all processes run, with a checkpoint and a picture to ask about."""
    place = tmp_path_factory.mktemp("place")
    shareable_copy(tiny_checkpoint, place / "tiny")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(place / "picture.png")
    return place


@pytest.fixture(scope="module")
def expected(place: Path) -> dict:
    """Compute what the model in the folder answers, with the package."""
    answerer = pipeline("visual-question-answering", model=str(place / "tiny"))
    picture = Image.open(place / "picture.png")
    inputs = answerer.processor(images=[picture], text=QUESTIONS[:1], return_tensors="pt")
    with torch.no_grad():
        logits = answerer.model(**inputs).logits[0, -1, :8].tolist()
    return {"answers": [answerer(image=picture, question=question) for question in QUESTIONS], "logits": logits}


def assert_alike(told: dict, expected: dict, source: str):
    """Compare what two processes reported; numbers are only close, because the last bits depend on the process."""
    assert told["class"] == source
    assert told["logits"] == pytest.approx(expected["logits"], rel=1e-4, abs=1e-5)
    for [answer], [wanted] in zip(told["answers"], expected["answers"], strict=True):
        assert answer["answer"] == wanted["answer"]
        assert answer["score"] == pytest.approx(wanted["score"], rel=1e-3)


def told_by(hub: LoopbackHub, place: Path, home: str, code: str, **arguments) -> dict:
    """Run code in another process, and return what it reported."""
    run(hub, place, home, "-c", code, "told.json", **arguments)
    return json.loads((place / "told.json").read_text())


PUSH = """
from contextlib import redirect_stdout
from io import StringIO
from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments
from modeling_vlkd.commands.main import main
from modeling_vlkd.trainers import VLKDDataCollator, VLKDDistillationConfig, VLKDDistillationTrainer

with redirect_stdout(StringIO()) as printed:
    assert main(["push", "tiny", "alice/tiny", "--tag", "v1.0"]) == 0
told["printed"] = printed.getvalue()

def load():
    return VLKDForConditionalGeneration.from_pretrained("tiny"), VLKDProcessor.from_pretrained("tiny")

model, processor = load()
model.push_to_hub("alice/by-hand", max_shard_size="40KB")
processor.push_to_hub("alice/by-hand")

settings = dict(max_steps=1, per_device_train_batch_size=2, save_steps=1, report_to="none", use_cpu=True)
settings |= dict(push_to_hub=True, learning_rate=0.0, disable_tqdm=True)  # 0.0: the answers stay the same
pictures = torch.rand(2, 3, 64, 64)

pairs = [dict(pixel_values=picture, caption="a box.", text_teacher_embeds=torch.ones(12)) for picture in pictures]
arguments = VLKDDistillationConfig(
    "distilled", **settings, init_image_to_decoder=False, hub_strategy="all_checkpoints"
)
trainer = VLKDDistillationTrainer(model, arguments, train_dataset=pairs, processing_class=processor)
trainer.train()
trainer.push_to_hub()

model, processor = load()
rows = model.get_image_rows(pictures).detach()
examples = [dict(image_embeds=row, question="why?", answer="so") for row in rows]
arguments = Seq2SeqTrainingArguments("finetuned", **settings, remove_unused_columns=False)
trainer = Seq2SeqTrainer(
    model, arguments, data_collator=VLKDDataCollator(processor), train_dataset=examples, processing_class=processor
)
trainer.train()
trainer.push_to_hub()

told["with the package"] = ask("alice/tiny", revision="v1.0")
tell()
"""


@pytest.fixture(scope="module")
def pushed(hub: LoopbackHub, place: Path) -> dict:
    """Push by the command and by the methods of model, processor and trainers, then load with the package."""
    return told_by(hub, place, "alice", ASK + PUSH, token="hf_write")


def test_command_tells_what_is_there_and_how_to_load_it(hub: LoopbackHub, pushed: dict):
    commit, printed = hub.repos["alice/tiny"].tags["v1.0"], pushed["printed"]
    assert printed.startswith(f"{hub.hub.url}/alice/tiny, commit {commit[:7]}, tagged v1.0: 20 files")
    assert printed.splitlines()[-3:] == [
        "    from transformers import pipeline",
        '    answerer = pipeline("visual-question-answering", model="alice/tiny", revision="v1.0", '
        "trust_remote_code=True)",
        '    answerer(image="picture.jpg", question="what color is it?")',
    ]


STRANGER = """
from huggingface_hub import constants, hf_hub_download

constants.DOWNLOAD_CHUNK_SIZE = 10_000  # small, so that a cut download can be continued, as in files of gigabytes
trust = {"trust_remote_code": True}
try:  # the connection breaks off, and then the storage answers with an error
    hf_hub_download("alice/tiny", "model.safetensors", revision="v1.0")
except OSError as error:
    told["cut"] = str(error)
for revision in ("v1.0", COMMIT):
    told[revision] = ask("alice/tiny", revision=revision, **trust)
told["config"] = type(AutoConfig.from_pretrained("alice/tiny", **trust)).__module__.partition(".")[0]
model = AutoModelForImageTextToText.from_pretrained("alice/tiny", revision=COMMIT, **trust)
processor = AutoProcessor.from_pretrained("alice/tiny", revision=COMMIT, **trust)
told["auto"] = logits(model, processor)
told["base"] = type(AutoModel.from_pretrained("alice/tiny", **trust)).__module__.partition(".")[0]
classifier = pipeline("zero-shot-image-classification", model="alice/tiny", **trust)
told["classes"] = classifier(picture, candidate_labels=CLASSES)
told["tokens"] = AutoTokenizer.from_pretrained("alice/tiny", **trust)("why?")["input_ids"]
for name in ("alice/by-hand", "alice/distilled", "alice/finetuned"):
    told[name] = ask(name, **trust)
try:
    AutoConfig.from_pretrained("alice/private", **trust)
except OSError as error:
    told["refused"] = str(error)
told["private"] = ask("alice/private", token="hf_read", **trust)
tell()
"""


@pytest.fixture(scope="module")
def pulled(hub: LoopbackHub, place: Path, pushed: dict) -> dict:
    """Load all that was pushed, in a process that has neither the package nor a token."""
    repo = hub.repos["alice/tiny"]
    hub.repos["alice/private"] = private = Repo(private=True)
    private.commit("main", repo.files)
    hub.seen.clear()
    cuts = [Fault("GET", "/get/", cut=cut) for cut in (100_000, 150_000)]
    hub.faults += [cuts[0], Fault("GET", "/get/", status=403), cuts[1]]
    code = f"COMMIT = {repo.tags['v1.0']!r}\n{FORGET_THE_PACKAGE}{ASK}{STRANGER}"
    return told_by(hub, place, "stranger", code)


@pytest.mark.parametrize("name", ["v1.0", "commit", "alice/by-hand", "alice/distilled", "alice/finetuned", "private"])
def test_stranger_gets_what_the_folder_gives(name: str, hub: LoopbackHub, pulled: dict, expected: dict):
    """The model is loaded by tag and by commit; so are those that `push_to_hub` and both trainers pushed."""
    told = pulled[hub.repos["alice/tiny"].tags["v1.0"] if name == "commit" else name]
    assert_alike(told, expected, "transformers_modules")


def test_with_the_package_no_trust_is_needed(pushed: dict, expected: dict):
    assert_alike(pushed["with the package"], expected, "modeling_vlkd")


def test_every_auto_class_finds_the_code(pulled: dict, expected: dict, tokenizer):
    assert pulled["auto"] == pytest.approx(expected["logits"], rel=1e-4, abs=1e-5)
    assert pulled["config"] == pulled["base"] == "transformers_modules"
    assert pulled["tokens"] == tokenizer("why?")["input_ids"]


def test_stranger_classifies_without_training(pulled: dict, place: Path):
    """By transformers' own pipeline, which finds the code through the auto map alone."""
    classifier = pipeline("zero-shot-image-classification", model=str(place / "tiny"))
    expected = classifier(Image.open(place / "picture.png"), candidate_labels=CLASSES)
    assert [each["label"] for each in pulled["classes"]] == [each["label"] for each in expected]
    assert [each["score"] for each in pulled["classes"]] == pytest.approx(
        [each["score"] for each in expected], rel=1e-3
    )


def test_private_repository_is_refused_without_a_token(pulled: dict):
    assert "alice/private is not a local folder and is not a valid model identifier" in pulled["refused"]


def test_download_goes_on_where_it_was_cut_off(hub: LoopbackHub, place: Path, pulled: dict):
    """The client goes on within one call, until the storage answers with an error. The next call begins anew."""
    assert "403" in pulled["cut"]
    ranges = [seen.range for seen in hub.seen if "/get/" in seen.path]
    assert ranges[:4] == [None, "bytes=100000-", None, "bytes=150000-"]
    cached = place / "stranger" / "hub" / "models--alice--tiny" / "snapshots" / hub.repos["alice/tiny"].tags["v1.0"]
    assert (cached / "model.safetensors").read_bytes() == (place / "tiny" / "model.safetensors").read_bytes()


def test_cache_is_enough_without_the_hub(hub: LoopbackHub, place: Path, pulled: dict, expected: dict):
    hub.seen.clear()
    code = f"{FORGET_THE_PACKAGE}{ASK}told = ask('alice/tiny', revision='v1.0', trust_remote_code=True)\ntell()"
    told = told_by(hub, place, "stranger", code, HF_HUB_OFFLINE="1")
    assert_alike(told, expected, "transformers_modules")
    assert not hub.seen


@pytest.mark.parametrize("name", ["alice/distilled", "alice/finetuned"])
def test_what_trainers_push_while_they_train_has_the_code_already(name: str, hub: LoopbackHub, pushed: dict):
    commits = [set(files) for files in hub.repos[name].commits.values()]
    assert len(commits) >= 3  # when the repository is made, in training, and at the end
    for files in commits[1:]:
        assert {"model.safetensors", "modeling_vlkd.py", "pipeline_vlkd.py", "towers_vlkd.py"} <= files


def test_a_checkpoint_is_pushed_whole_and_under_its_name(hub: LoopbackHub, place: Path, pushed: dict):
    """While it is written the folder has another name; on the Hub it must have its own."""
    kept = {path.name for path in (place / "distilled" / "checkpoint-1").iterdir()}
    folders = {path.rpartition("/")[0] for path in hub.repos["alice/distilled"].files}
    assert folders == {"", "checkpoint-1"}
    assert {f"checkpoint-1/{name}" for name in kept} <= set(hub.repos["alice/distilled"].files)
    assert {"trainer_state.json", "trained_on.json", "optimizer.pt"} <= kept


def test_second_push_to_hub_keeps_the_card_of_the_first(hub: LoopbackHub, pushed: dict):
    """After both pushes, there is a whole checkpoint on the Hub."""
    files = hub.repos["alice/by-hand"].files
    assert "library_name: transformers" in files["README.md"].content.decode()
    assert {"pipeline_vlkd.py", "processing_vlkd.py", "image_processing_vlkd.py", "tokenizer.json"} <= set(files)
    assert len([name for name in files if name.endswith(".safetensors")]) > 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "/alice/tiny, commit 0123456: 2 files, 3.2 MB."),
        ({"private": True, "tag": "v2"}, "/alice/tiny (private), commit 0123456, tagged v2: 2 files, 3.2 MB."),
        ({"changed": False}, "2 files, 3.2 MB, which it held already: nothing was changed."),
        ({"removed": ["model-00001-of-00002.safetensors"]}, "weights of before: model-00001-of-00002.safetensors."),
        ({"left_out": ["runs/", "optimizer.pt"]}, "Left out: runs/, optimizer.pt."),
        ({"architecture": "VLKDForSequenceClassification"}, "AutoModelForSequenceClassification.from_pretrained("),
    ],
)
def test_summary_says_what_happened(changes: dict, expected: str):
    about = {"architecture": "VLKDForConditionalGeneration", "left_out": []}
    about |= {name: changes.pop(name) for name in list(changes) if name in about}
    content = Shareable(**about, files=["README.md", "model.safetensors"], size=3_200_000)
    facts = {"tag": None, "private": False, "changed": True, "removed": [], **changes}
    printed = summary(Published("alice/tiny", "https://hub/alice/tiny", "0123456789" * 4, **facts, content=content))
    assert expected in printed
