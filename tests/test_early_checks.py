"""Mistakes in a training command that are found before torch is imported."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_vlkd.commands.early_checks import KNOWN_ELSEWHERE, refuse_early
from modeling_vlkd.commands.training_parser import TrainingParser


BAD = [
    ("distill --dataset nowhere", "--dataset nowhere does not exist; give a folder, a parquet file or a Hub id"),
    ("distill --dataset=no/such/folder", "--dataset no/such/folder does not exist"),
    ("distill --vision ./nowhere", "--vision ./nowhere does not exist; give a folder or a Hub id"),
    ("distill --text /nowhere --dataset {here}", "--text /nowhere does not exist"),
    ("distill --teacher no/such/clip", "--teacher no/such/clip does not exist"),
    ("distill --replay nowhere.txt", "--replay nowhere.txt does not exist; give a file"),
    ("distill --questions {here}", "--questions {here} is a folder; give a file"),
    ("distill --config {here}/run.yaml", "--dataset nowhere/ does not exist"),
    ("distill --batch_size 8", "unrecognized arguments: --batch_size 8; did you mean --per_device_train_batch_size?"),
    ("distill --lr=1e-3", "did you mean --learning_rate?"),
    ("distill --model x", "did you mean --checkpoint?"),
    ("finetune --checkpoint ./nowhere", "--checkpoint ./nowhere does not exist"),
    ("finetune --questions nowhere.csv", "--questions nowhere.csv does not exist; give a file"),
    ("finetune --eval-questions nowhere.csv", "--eval_questions nowhere.csv does not exist; give a file"),
    ("finetune --epochs 3", "unrecognized arguments: --epochs 3; did you mean --num_train_epochs?"),
    ("finetune --output x", "did you mean --output_dir?"),
    ("finetune --dataset x", "did you mean --questions?"),
]


@pytest.mark.parametrize(("command", "message"), BAD, ids=[command for command, _ in BAD])
def test_a_missing_path_or_a_flag_known_elsewhere_is_named(command: str, message: str, tmp_path: Path):
    (tmp_path / "run.yaml").write_text("seed: 7\ndataset: nowhere/\n")
    name, *words = shlex.split(command.format(here=tmp_path))
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        refuse_early(name, words)
    assert message.format(here=tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        "distill --vision openai/clip-vit-base-patch16 --text facebook/bart-base --dataset me/pictures",
        "distill --vision gpt2 --dataset {here} --dataset {here} --hub_model_id no/such/model",
        "distill --dataset nowhere --dataset {here}",  # the last one counts
        "distill --dataset nowhere --help",
        "finetune -h",
        "finetune --checkpoint --questions",  # the parser reports it later
    ],
)
def test_what_may_be_right_passes(command: str, tmp_path: Path):
    name, *words = shlex.split(command.format(here=tmp_path))
    refuse_early(name, words)


@pytest.mark.parametrize("name", KNOWN_ELSEWHERE)
def test_no_flag_is_taken_for_a_mistake_and_every_remedy_is_a_flag(name: str, monkeypatch: pytest.MonkeyPatch):
    parsers: list[TrainingParser] = []
    monkeypatch.setattr(TrainingParser, "parse", lambda self, argv: parsers.append(self) or sys.exit())
    with pytest.raises(SystemExit):
        __import__(f"modeling_vlkd.commands.{name}", fromlist=["main"]).main([])
    flags = {flag.removeprefix("--") for action in parsers[0]._actions for flag in action.option_strings}
    assert flags.isdisjoint(KNOWN_ELSEWHERE[name])
    assert set(KNOWN_ELSEWHERE[name].values()) <= flags


def test_torch_is_not_imported_for_that():
    script = Path(sys.executable).parent / "vlkd"
    command = [sys.executable, "-X", "importtime", script, "distill", "--dataset", "nowhere"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert "vlkd distill: error: --dataset nowhere does not exist" in result.stderr
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert loaded.isdisjoint({"torch", "transformers"})
