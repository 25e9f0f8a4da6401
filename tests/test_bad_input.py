"""A user's mistake gets one line that says what to do, exit code 2, and no half-written file."""

import importlib.util
import json
import logging
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modeling_vlkd.commands.main import SUBCOMMANDS, main


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_checkpoint: Path, bart_folder: Path, clip_folder: Path) -> Path:
    """Make a folder with good and bad pictures, data sets and checkpoints, to which the cases below refer."""
    place = tmp_path_factory.mktemp("place")
    good = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    good.save(place / "good.png")
    (place / "broken.png").write_bytes((place / "good.png").read_bytes()[:300])
    (place / "text.png").write_text("no picture")
    (place / "empty.png").write_bytes(b"")
    (place / "no_pictures").mkdir()
    (place / "mixed").mkdir()
    shutil.copy(place / "good.png", place / "mixed" / "a.png")
    shutil.copy(place / "broken.png", place / "mixed" / "b.png")
    (place / "bart").symlink_to(bart_folder)
    (place / "clip").symlink_to(clip_folder)
    (place / "vlkd").symlink_to(tiny_checkpoint)
    shutil.copytree(tiny_checkpoint, place / "cut_weights")
    weights = place / "cut_weights" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    shutil.copytree(tiny_checkpoint, place / "no_weights", ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copytree(tiny_checkpoint, place / "bad_config")
    (place / "bad_config" / "config.json").write_text("{")
    shutil.copytree(tiny_checkpoint, place / "list_config")
    (place / "list_config" / "config.json").write_text("[]")
    shutil.copytree(tiny_checkpoint, place / "no_tokenizer", ignore=shutil.ignore_patterns("tokenizer*"))
    shutil.copytree(tiny_checkpoint, place / "no_processor", ignore=shutil.ignore_patterns("*processor*"))
    return place


# The command line, with {place} for the folder above, and a part of the one line that it has to print.
CASES = [
    ("answr", "there is no command 'answr'"),
    ("--verbose", "there is no command '--verbose'"),
    ("answer", "the following arguments are required"),
    ("answer {place}/good.png --checkpoint {place}/vlkd", "expected pictures and a question"),
    ("answer {place}/good.png {place}/mixed/a.png", "the question is missing: '{place}/mixed/a.png', the last word"),
    ("answer {place}/good.png nope.JPG --checkpoint {place}/vlkd", "the question is missing: 'nope.JPG'"),
    ("answer {place}/good.png {place}/mixed --checkpoint {place}/vlkd", "the question is missing: '{place}/mixed'"),
    ("answer {place}/good.png https://a.b/c --checkpoint {place}/vlkd", "the question is missing: 'https://a.b/c'"),
    ("answer {place}/good.png what? --maks 3", "did you mean --masks?"),
    ("answer {place}/good.png what? --masks 0", "expected a whole number of at least 1, got '0'"),
    ("answer {place}/good.png what? --beams two", "expected a whole number of at least 1, got 'two'"),
    ("answer {place}/good.png what? --top-k -1", "expected a whole number of at least 1, got '-1'"),
    ("answer {place}/nope.png what? --checkpoint {place}/vlkd", "no such picture: {place}/nope.png"),
    ("answer file://{place}/nope.png what? --checkpoint {place}/vlkd", "no such picture: {place}/nope.png"),
    ("answer {place}/*.webp what? --checkpoint {place}/vlkd", "no such picture"),
    ("answer {place}/no_pictures what? --checkpoint {place}/vlkd", "no pictures in the folder"),
    ("answer {place}/good.png '' --checkpoint {place}/vlkd", "Question 0 is ''"),
    ("answer {place}/good.png '  ' --checkpoint {place}/vlkd", "Question 0 is '  '"),
    ("answer {place}/good.png '{endless}' --checkpoint {place}/vlkd", "shorten the question or take fewer --masks."),
    ("answer {place}/good.png what? --masks 5000 --checkpoint {place}/vlkd", "or take fewer --masks."),
    ("caption {place}/good.png --masks 5000 --checkpoint {place}/vlkd", "; take fewer --masks."),
    ("answer {place}/good.png what? --checkpoint {place}/vlkd --device cudda", "--device cudda cannot be used"),
    ("answer {place}/broken.png what? --checkpoint {place}/vlkd", "broken.png cannot be read"),
    ("caption {place}/text.png --checkpoint {place}/vlkd", "text.png cannot be read"),
    ("caption {place}/empty.png --checkpoint {place}/vlkd", "empty.png cannot be read"),
    ("caption {place}/good.png --checkpoint {place}/nowhere", "run `vlkd demo` to make one"),
    ("caption {place}/good.png --checkpoint {place}/no_pictures", "config.json"),
    ("caption {place}/good.png --checkpoint {place}/bart", "holds a model of type 'bart'"),
    ("caption {place}/good.png --checkpoint {place}/clip", "holds a model of type 'clip'"),
    ("caption {place}/good.png --checkpoint {place}/cut_weights", "truncated or damaged"),
    ("caption {place}/good.png --checkpoint {place}/no_weights", "no file named model.safetensors"),
    ("caption {place}/good.png --checkpoint {place}/bad_config", "not a valid JSON"),
    ("caption {place}/good.png --checkpoint {place}/list_config", "holds a model of type [], not 'vlkd'"),
    ("caption {place}/good.png --checkpoint {place}/good.png", "good.png is a file; name the folder of a checkpoint"),
    ("caption {place}/good.png --checkpoint {place}/no_tokenizer", "The processor of {place}/no_tokenizer cannot be"),
    ("caption {place}/good.png --checkpoint {place}/no_processor", "The processor of {place}/no_processor cannot be"),
    ("caption {place}/good.png --checkpoint a/b/c", "There is no folder 'a/b/c', and on the Hub: Repo id must be"),
    ("embed --checkpoint {place}/vlkd", "expected pictures, --text, or both"),
    ("embed --text '' --checkpoint {place}/vlkd", "Text 0 is ''"),
    ("embed {place}/good.png --output {place}/no/where.safetensors --checkpoint {place}/vlkd", "there is no folder"),
    (
        "embed {place}/good.png --output {place} --checkpoint {place}/vlkd",
        "--output {place}: this is a folder; name a file",
    ),
    ("embed --text '{endless}' --checkpoint {place}/vlkd", "; shorten it."),
    ("demo --seed 1 --sedes 3", "did you mean --seeds?"),
    ("demo --seeds 0", "--seeds 0: give 1 or more"),
    ("demo --seeds two", "invalid int value: 'two'"),
    ("demo --json {place}/no/where.json", "there is no folder {place}/no"),
    ("demo --report {place}", "this is a folder; name a file"),
    ("demo --output {place}/good.png", "this is a file; name a folder"),
    ("push {place}/vlkd", "the following arguments are required: USER/REPO"),
    ("push {place}/vlkd alice/tiny --tg v1.0", "did you mean --tag?"),
    ("push {place}/vlkd tiny", "'tiny' does not name an owner; give USER/tiny"),
    ("push {place}/vlkd alice/tiny:v1", "'alice/tiny:v1' is no name of a repository"),
    ("push {place}/vlkd alice/tiny --tag 'v 1'", "'v 1' is no name of a tag"),
    ("push {place}/nowhere alice/tiny", "{place}/nowhere is not a folder"),
    ("push {place}/good.png alice/tiny", "{place}/good.png is not a folder"),
    ("push {place}/no_pictures alice/tiny", "{place}/no_pictures is no checkpoint"),
    ("push {place}/bart alice/tiny", "holds a model of type 'bart', not 'vlkd'"),
    ("push {place}/no_weights alice/tiny", "holds no weights"),
    ("push {place}/cut_weights alice/tiny", "model.safetensors is truncated or damaged"),
    ("push {place}/bad_config alice/tiny", "config.json, line 1: no JSON"),
    ("push {place}/vlkd alice/tiny", "There is no model card {place}/vlkd/README.md; write one"),
]


@pytest.mark.parametrize(("command", "message"), CASES, ids=[command for command, _ in CASES])
def test_mistake_gets_one_line_and_exit_code_2(command: str, message: str, place: Path, capsys):
    words = [word.format(place=place, endless="why " * 2000) for word in split(command)]
    before = listing(place)
    assert exit_code(words) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert message.format(place=place) in lines[0]
    assert captured.out == ""
    assert listing(place) == before


def split(command: str) -> list[str]:
    """Split as a shell does, but leave globs to the program."""
    return shlex.split(command)


def exit_code(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as stop:  # argparse exits so
        return stop.code


def listing(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


@pytest.mark.parametrize("name", ["answer", "caption"])
def test_no_library_warns_before_the_one_line(name: str, place: Path, capsys):
    """Listen to the log itself: it writes to the standard error that existed when transformers was imported."""
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    logging.getLogger("transformers").addHandler(handler)
    try:
        words = [name, str(place / "good.png"), *(["what?"] if name == "answer" else []), "--masks", "5000"]
        assert exit_code([*words, "--checkpoint", str(place / "vlkd")]) == 2
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    assert not [message for message in heard if "indexing errors" in message]


def test_one_bad_picture_among_good_ones_loses_nothing(place: Path, capsys):
    assert exit_code(["caption", str(place / "mixed"), "--checkpoint", str(place / "vlkd"), "--json"]) == 2
    captured = capsys.readouterr()
    assert [Path(each["image"]).name for each in json.loads(captured.out)] == ["a.png"]
    assert "b.png cannot be read" in captured.err


@pytest.mark.parametrize("name", sorted(SUBCOMMANDS))
def test_every_command_has_help(name: str, capsys):
    assert exit_code([name, "--help"]) == 0
    assert f"vlkd {name}" in capsys.readouterr().out


OURS = {
    "distill": ["--dataset", "--output_dir", "--ttdm_weight", "--mask_ratio", "--resume_from_checkpoint"],
    "finetune": ["--questions", "--eval_questions", "--output_dir", "--resume_from_checkpoint"],
}


@pytest.mark.parametrize("name", OURS)
def test_help_shows_our_own_flags_and_says_how_to_see_the_rest(name: str, capsys):
    assert exit_code([name, "--help"]) == 0
    brief = capsys.readouterr().out
    assert exit_code([name, "--help-all"]) == 0
    own, inherited = capsys.readouterr().out.split("flags of transformers' training arguments:")
    for flag in OURS[name]:
        assert f"  {flag} " in brief
        assert f"  {flag} " in own
        assert f"  {flag} " not in inherited
    assert "  --adam_beta1 " in inherited
    assert "  --adam_beta1 " not in brief
    assert len(brief.splitlines()) < 150
    assert "--help-all lists" in brief.splitlines()[-3]
    assert re.search(r"^  --output_dir ", brief, flags=re.MULTILINE)
    assert "--output-dir" not in brief  # one spelling is shown, and both are taken
    assert "`true` to go on with the run" in brief
    assert "default: None" not in own + inherited


def test_a_file_url_is_the_path_that_it_names(place: Path, tmp_path: Path, capsys):
    shutil.copy(place / "good.png", tmp_path / "a picture.png")
    url = (tmp_path / "a picture.png").as_uri()
    assert "%20" in url
    assert exit_code(["caption", url, "--checkpoint", str(place / "vlkd"), "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert found["image"] == str(tmp_path / "a picture.png")


def test_a_message_about_a_kernel_that_no_command_uses_is_filtered(capsys):
    """Filter the message that bitsandbytes logs when peft imports it; its source has to contain the same words."""
    heard: list[str] = []
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    log.addHandler(handler)
    try:
        assert exit_code(["answer"]) == 2
        log.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s. Please make sure", "reason")
        log.warning("something else")
    finally:
        log.removeHandler(handler)
    assert heard == ["something else"]
    source = Path(importlib.util.find_spec("bitsandbytes.backends.cpu.ops").origin).read_text()
    assert "Failed to load CPU gemm_4bit_forward from kernels-community" in source


def test_no_command_prints_help(capsys):
    assert exit_code([]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in SUBCOMMANDS)


def test_full_disk_leaves_nothing(place: Path, tmp_path: Path, capsys):
    """Simulate a full disk by a limit on the size of files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        words = ["embed", str(place / "good.png"), "--checkpoint", str(place / "vlkd")]
        assert exit_code([*words, "--output", str(tmp_path / "rows.safetensors")]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in capsys.readouterr().err
    assert listing(tmp_path) == []


def test_interrupting_leaves_one_line(place: Path, tmp_path: Path):
    """Press Ctrl-C while many pictures are captioned."""
    good = Image.open(place / "good.png")
    for number in range(3000):
        good.save(tmp_path / f"{number}.bmp")
    command = [sys.executable, "-m", "modeling_vlkd.commands.main", "caption", str(tmp_path), "--batch-size", "1"]
    process = subprocess.Popen(
        [*command, "--checkpoint", str(place / "vlkd")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a process in the background ignores SIGINT
    )
    process.stdout.readline()  # it has begun
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.strip().splitlines()[-1] == "vlkd caption: error: interrupted"
    assert "Traceback" not in errors
