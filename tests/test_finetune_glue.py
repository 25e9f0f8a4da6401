"""`vlkd finetune --task glue`: one run, a grid that goes on, and mistakes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, pipeline

from modeling_vlkd.commands import finetune_glue
from modeling_vlkd.commands.main import main
from modeling_vlkd.trainers.grid import GridPoint


@pytest.fixture
def place(tmp_path: Path, tiny_checkpoint: Path, monkeypatch) -> Path:
    """A folder with a checkpoint and SST-2 in the format of the official download."""
    (tmp_path / "vlkd").symlink_to(tiny_checkpoint)
    (tmp_path / "SST-2").mkdir()
    lines = ["sentence\tlabel", *(f"a {color} box\t{int(color == 'red')}" for color in ("red", "blue", "teal") * 6)]
    for name in ("train", "dev"):
        (tmp_path / "SST-2" / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMAND = (
    "finetune --task glue --glue_task sst2 --checkpoint vlkd --train_data SST-2 --eval_data SST-2 --output_dir out"
)
QUICK = "--use_cpu true --disable_tqdm true --report_to none --max_steps 2 --per_device_train_batch_size 8"


def test_a_run_leaves_a_classifier_with_its_card(place: Path, capsys):
    words = f"{COMMAND} {QUICK} --bridge_text_only false --eval_strategy steps --eval_steps 1 --save_steps 1".split()
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "is the accuracy on 18 examples of SST-2" in said
    assert "The finetuned model is in out" in said
    model = AutoModelForSequenceClassification.from_pretrained("out")
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert model.config.bridge_text_only is False
    assert pipeline("text-classification", "out")("a red box")[0]["label"] in ("negative", "positive")
    before = AutoModelForSequenceClassification.from_pretrained("vlkd").model.vision_tower.state_dict()
    assert all(torch.equal(before[name], value) for name, value in model.model.vision_tower.state_dict().items())
    card = (place / "out" / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert "SST-2, accuracy" in card
    assert "of the training data" not in card  # train.tsv and dev.tsv of one folder
    assert "| optim | `lamb` |" in card
    assert "trained on labeled texts (SST-2), with a new head" in card
    assert "visual-question-answering" not in card
    assert "image-captioning" not in card


def test_an_adapter_trains_the_head_too(place: Path):
    assert main([*COMMAND.split(), *QUICK.split(), "--lora", "2", "--eval_strategy", "no"]) == 0
    model = AutoModelForSequenceClassification.from_pretrained("out")
    names = json.loads((place / "out" / "adapter" / "adapter_config.json").read_text())
    assert "classification_head" in names["modules_to_save"]
    assert model.classification_head.out_proj.weight.shape[0] == 2


def test_a_grid_leaves_the_best_model_and_all_figures_and_is_not_made_again(place: Path, monkeypatch, capsys):
    (place / "SST-2" / "test.tsv").write_text("sentence\tlabel\na red box\t1\n")
    other = AutoModelForSequenceClassification.from_pretrained("vlkd")
    other.model.text_projection.weight.data += 1
    shutil.copytree("vlkd", "other")
    other.save_pretrained("other")
    points = [GridPoint(6, 1e-5, 1e-4), GridPoint(18, 3e-2, 1e-3)]
    monkeypatch.setattr(finetune_glue, "GLUE_GRID", points)
    words = [*COMMAND.split(), *QUICK.split(), "--grid", "true", "--save_strategy", "no", "--eval_strategy", "no"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.count("Point ") == 2
    results = json.loads((place / "out" / "grid_results.json").read_text())
    assert [each["batch_size"] for each in results] == [6, 18]
    best = max(results, key=lambda each: each["accuracy"])
    assert f"{best['accuracy']:.4f} is the accuracy on 18 examples of SST-2, at the best of 2 points" in said
    assert len(list((place / "out" / "grid").rglob("model.safetensors"))) == 1
    AutoModelForSequenceClassification.from_pretrained("out")
    stamp = (place / "out" / "grid_results.json").read_text()
    assert main(words) == 0
    assert "Point " not in capsys.readouterr().out
    assert (place / "out" / "grid_results.json").read_text() == stamp
    for more, name in (
        ("--seed 1", "seed was 42 and is 1"),
        ("--warmup_steps 0", "warmup_steps was 0.1 and is 0"),
        ("--max_text_length 5", "max_text_length was null and is 5"),
        ("--eval_split test", "evaluated_on was"),
        ("--checkpoint other", "weights was"),
    ):
        assert main([*words, *more.split()]) == 2
        assert f"another grid: {name}" in capsys.readouterr().err


BAD = {
    "no task": (COMMAND.replace("--glue_task sst2 ", ""), "the following arguments are required: --glue_task"),
    "unknown task": (COMMAND.replace("sst2", "wnli"), "GLUE has no task 'wnli'; choose one of cola"),
    "no data": (COMMAND.replace("--train_data SST-2", "--train_data nope"), "--train_data nope does not exist"),
    "other data": (COMMAND.replace("sst2", "rte"), "has no column 'sentence1'"),
    "test split": (f"{COMMAND} --eval_split test", "--eval_data SST-2: example 0 has no label; give a split with"),
    "grid without evaluation": (
        COMMAND.replace("--eval_data SST-2", "--grid true"),
        "--grid needs --eval_data, to know which point is the best",
    ),
    "flag of run_glue": (f"{COMMAND} --task_name sst2", "did you mean --glue_task?"),
    "grid that cannot be shared": (
        f"{COMMAND} --grid true --gradient_accumulation_steps 5",
        "--grid has batches of 16",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_line(name: str, place: Path, capsys):
    words, message = BAD[name]
    (place / "SST-2" / "test.tsv").write_text("index\tsentence\n0\ta red box\n")
    try:
        code = main([*words.split(), "--use_cpu", "true", "--disable_tqdm", "true"])
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    assert code == 2
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
