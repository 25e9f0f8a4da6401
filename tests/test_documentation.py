"""Runs what the README shows: python blocks one after the other, and each `vlkd` line of the shell blocks."""

import doctest
import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from loopback_hub import LoopbackHub
from PIL import Image
from stranger import FORGET_THE_PACKAGE, run
from tiny_sources import save_openai_archive

from modeling_vlkd.commands.main import main
from modeling_vlkd.miniature.distilling import WEIGHTS, Teachers, assemble
from modeling_vlkd.miniature.report import markdown_table
from modeling_vlkd.miniature.world import load_train_and_validation


ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# There is neither a Hub in a test nor much time: the miniature's teachers stand for the published ones.
STAND_INS = {
    "num_train_epochs=1,": "max_steps=2,",  # minutes otherwise
    "openai/clip-vit-base-patch16": str(WEIGHTS / "clip"),
    "facebook/bart-large": str(WEIGHTS / "bart"),
}


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    for name, stand_in in STAND_INS.items():
        found = [block.replace(name, stand_in) for block in found]
    return found


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
    for name in re.findall(r"(\S+)\.pt\b", README):  # one tiny archive for each of OpenAI's files
        kind = "resnet" if name.startswith("RN") else "vit"
        save_openai_archive(kind, folder / f"{name}.pt", vocab_size=49_408)  # as CLIP's tokenizer has
    return folder


def test_python_blocks_run_one_after_the_other(tour: Path, monkeypatch):
    monkeypatch.chdir(tour)
    found = [block for block in blocks("python") if "trust_remote_code" not in block]
    assert len(found) >= 4
    names: dict = {}
    for number, block in enumerate(found):
        exec(compile(block, f"README.md, python block {number}", "exec"), names)
    assert len(names["processor"].extract_answers(names["texts"])) == 2
    assert -1 <= names["similarity"].item() <= 1
    assert 0 <= names["accuracy"] <= 1


SHELL_LINES = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines() if line.strip()]


PUSH_LINES = [line for line in SHELL_LINES if line.startswith("vlkd push ")]  # they need a Hub


@pytest.mark.parametrize("line", [line for line in SHELL_LINES if line not in PUSH_LINES])
def test_shell_lines_run(line: str, tour: Path, monkeypatch, capsys):
    monkeypatch.chdir(tour)
    program, *words = shlex.split(line, comments=True)
    assert program == "vlkd"
    assert main(words) == 0
    assert capsys.readouterr().out.strip()


def test_what_is_pushed_is_loaded_by_a_stranger(tour: Path):
    [block] = [block for block in blocks("python") if "trust_remote_code" in block]
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
    targets = re.findall(r"^make (\S+)", "\n".join(blocks("console")), flags=re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == ["demo", "test"]
    assert all(f"\n{target}:" in makefile for target in targets)


def test_files_that_the_readme_links_to_exist():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_results_are_those_of_the_recorded_run():
    result = json.loads((ROOT / "docs" / "demo.json").read_text(encoding="utf-8"))
    assert markdown_table(result) in README
