"""`vlkd finetune` by task: dispatcher, best checkpoint, LoRA, early stopping, and both stages of captioning."""

import json
import re
from pathlib import Path

import pytest
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from tiny_training import COLORS, tiny_model, tiny_processor

from modeling_vlkd import VLKDForConditionalGeneration
from modeling_vlkd.commands.finetuning_run import evaluation_source, settings_of_evaluation
from modeling_vlkd.commands.finetuning_tasks import TASKS, choose_task
from modeling_vlkd.commands.main import main
from modeling_vlkd.trainers.card_trainer import TRAINED_ON


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Make a checkpoint, four pictures with captions, and a question about each."""
    folder, processor = tmp_path_factory.mktemp("world"), tiny_processor()
    model = tiny_model(processor)
    model.generation_config.max_new_tokens = 4
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    (folder / "pictures").mkdir()
    rows = ["image,question,answer"]
    captions = []
    for color in COLORS:
        Image.new("RGB", (8, 8), color).save(folder / "pictures" / f"{color}.png")
        rows.append(f"pictures/{color}.png,what color is the shape?,{color}")
        captions.append({"file_name": f"{color}.png", "captions": [f"a {color} box", f"the {color} box"]})
    (folder / "questions.csv").write_text("\n".join(rows) + "\n")
    (folder / "pictures" / "metadata.jsonl").write_text("".join(json.dumps(each) + "\n" for each in captions))
    return folder


def flags(world: Path, output: Path) -> list[str]:
    return [
        *("--checkpoint", str(world / "model"), "--output_dir", str(output), "--use_cpu", "true"),
        *("--report_to", "none", "--disable_tqdm", "true"),
    ]


def state_of(output: Path) -> dict:
    return json.loads((output / "trainer_state.json").read_text())


def test_the_task_is_named_on_the_command_line_or_in_the_file(tmp_path: Path):
    (tmp_path / "run.yaml").write_text("task: captioning\n")
    assert choose_task([]) == "vqa"
    assert choose_task(["--task=captioning"]) == "captioning"
    assert choose_task(["--seed", "1", "--config", str(tmp_path / "run.yaml")]) == "captioning"
    assert choose_task(["--task", "vqa", "--config", str(tmp_path / "run.yaml")]) == "vqa"


def test_an_unknown_task_is_one_line(capsys):
    assert main(["finetune", "--task", "captionning"]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line == "vlkd finetune: error: --task captionning: there is no such task; did you mean captioning?"


@pytest.mark.parametrize("task", TASKS)
def test_the_help_of_a_task_names_the_others(task: str, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["finetune", "--task", task, "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    for other in TASKS.keys() - {task}:
        assert f"vlkd finetune --task {other} --help" in said
    assert "--lora" in said
    assert f"usage: vlkd finetune --task {task} " in said


@pytest.mark.parametrize(
    ("given", "evaluated", "saved", "steps", "keeps_best"),
    [
        ({}, "epoch", "epoch", "500", True),
        ({"eval_steps": "50"}, "steps", "steps", "50", True),
        ({"save_strategy": "steps", "save_steps": "7"}, "steps", "steps", "7", True),
        ({"eval_strategy": "steps"}, "steps", "steps", "500", True),
        ({"eval_strategy": "epoch", "save_strategy": "no"}, "epoch", "no", "500", False),
        ({"save_strategy": "no"}, "epoch", "no", "500", False),
        ({"save_strategy": "best"}, "epoch", "best", "500", True),
        ({"load_best_model_at_end": "true"}, "epoch", "epoch", "500", True),
        ({"load_best_model_at_end": ""}, "epoch", "epoch", "500", True),
        ({"load_best_model_at_end": "false"}, "epoch", "epoch", "500", False),
    ],
)
def test_the_best_checkpoint_is_kept_unless_the_user_says_otherwise(given, evaluated, saved, steps, keeps_best):
    chosen = settings_of_evaluation(given, "vqa_accuracy", True)
    assert (chosen["eval_strategy"], chosen["save_strategy"], chosen["save_steps"]) == (evaluated, saved, steps)
    assert ("load_best_model_at_end" in chosen) == keeps_best


def test_without_evaluations_nothing_is_chosen():
    assert settings_of_evaluation({"eval_strategy": "no"}, "vqa_accuracy", True) == {}


@pytest.mark.parametrize(("flag", "kept"), [("true", 0.6), ("false", 0.2)])
def test_the_flag_says_whether_the_best_or_the_last_is_kept(
    flag: str, kept: float, world: Path, tmp_path: Path, capsys, monkeypatch
):
    values = iter([0.1, 0.6, 0.2])
    monkeypatch.setattr(
        "modeling_vlkd.trainers.answered_questions.AnswerEvaluation.score",
        lambda self, said: {"vqa_accuracy": next(values)},
    )
    words = [*flags(world, tmp_path), "--questions", str(world / "questions.csv"), "--num_train_epochs", "2"]
    words += ["--eval_questions", str(world / "questions.csv"), "--load_best_model_at_end", flag]
    assert main(["finetune", *words]) == 0
    assert f"{kept:.2%} of 4 questions answered right" in capsys.readouterr().out


def test_the_best_checkpoint_is_what_is_left(world: Path, tmp_path: Path, capsys, monkeypatch):
    """The metric is made to fall after the first evaluation in training, and rise again, not as high."""
    values = iter([0.1, 0.6, 0.2, 0.4])
    monkeypatch.setattr(
        "modeling_vlkd.trainers.answered_questions.AnswerEvaluation.score",
        lambda self, said: {"vqa_accuracy": next(values)},
    )
    words = [*flags(world, tmp_path), "--questions", str(world / "questions.csv"), "--num_train_epochs", "3"]
    words += ["--eval_questions", str(world / "questions.csv"), "--learning_rate", "1e-2"]
    assert main(["finetune", *words, "--save_total_limit", "5"]) == 0
    said = capsys.readouterr().out
    assert "60.00% of 4 questions answered right; 10.00% before (step 1 of 3, the best)." in said
    kept, best, last = (
        load_file(tmp_path / folder / "model.safetensors")["model.text_projection.weight"]
        for folder in ("", "checkpoint-1", "checkpoint-3")
    )
    assert kept.equal(best)
    assert not kept.equal(last)
    card = (tmp_path / "README.md").read_text()
    assert "| best_step | `1` |" in card
    assert "| vqa_accuracy before | `0.1` |" in card


def test_a_run_stops_early_and_says_that_it_did_not_get_better(world: Path, tmp_path: Path, capsys, monkeypatch):
    values = iter([0.5, 0.4, 0.3, 0.2, 0.1])
    monkeypatch.setattr(
        "modeling_vlkd.trainers.answered_questions.AnswerEvaluation.score",
        lambda self, said: {"vqa_accuracy": next(values)},
    )
    words = [*flags(world, tmp_path), "--questions", str(world / "questions.csv"), "--num_train_epochs", "9"]
    words += ["--eval_questions", str(world / "questions.csv"), "--early_stopping_patience", "2"]
    assert main(["finetune", *words]) == 0
    assert "50.00% before, which it does not beat" in capsys.readouterr().out
    assert state_of(tmp_path)["global_step"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--early_stopping_patience 2", "--early_stopping_patience needs --eval_questions"),
        ("--early_stopping_patience 0", "--early_stopping_patience 0: give 1 or more"),
        ("--lora 0", "--lora 0: give 1 or more, or leave it out"),
        ("--lora 4 --freeze_vision_tower false", "add --freeze_vision_tower true, or leave --lora out"),
        (
            "--eval_questions {world}/questions.csv --eval_steps abc",
            "--eval_steps/--eval-steps: invalid float value: 'abc'",
        ),
        ("--eval_images {world}/pictures", "--eval_images needs --eval_questions"),
        ("--eval_annotations {world}/questions.csv", "--eval_annotations needs --eval_questions"),
        ("--extra_images {world}/pictures", "--extra_images needs --extra_questions"),
        ("--images {world}/pictures", "questions.csv names its pictures itself; leave --images out"),
        (
            "--eval_questions {world}/questions.csv --eval_images {world}/pictures",
            "questions.csv names its pictures itself; leave --eval_images out",
        ),
        ("--images {world}/nowhere", "nowhere does not exist; give a folder"),
    ],
)
def test_what_does_not_go_together_is_one_line(world: Path, tmp_path: Path, capsys, words: str, message: str):
    given = [*flags(world, tmp_path / "out"), "--questions", str(world / "questions.csv")]
    try:
        code = main(["finetune", *given, *words.format(world=world).split()])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_lora_leaves_an_adapter_and_a_whole_model(world: Path, tmp_path: Path):
    words = [*flags(world, tmp_path), "--questions", str(world / "questions.csv"), "--max_steps", "2"]
    assert main(["finetune", *words, "--lora", "4", "--learning_rate", "1e-2"]) == 0
    base = VLKDForConditionalGeneration.from_pretrained(world / "model")
    merged = VLKDForConditionalGeneration.from_pretrained(tmp_path).state_dict()
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload().state_dict()
    before = load_file(world / "model" / "model.safetensors")
    changed = {name for name in before if not merged[name].equal(before[name])}
    assert changed
    assert all(name.endswith(("q_proj.weight", "v_proj.weight")) and "language_model" in name for name in changed)
    assert all(merged[name].allclose(adapted[name], atol=1e-6) for name in merged)


def test_captions_are_learnt_and_then_their_cider_raised(world: Path, tmp_path: Path, capsys):
    data = ["--task", "captioning", "--dataset", str(world / "pictures"), "--eval_split", "train"]
    data += ["--cache", str(tmp_path / "cache"), "--max_steps", "2", "--logging_steps", "1"]
    assert main(["finetune", *flags(world, tmp_path / "first"), *data]) == 0
    assert "CIDEr 0" in capsys.readouterr().out
    first = state_of(tmp_path / "first")["log_history"]
    assert {"eval_CIDEr", "eval_Bleu_4", "eval_ROUGE_L", "eval_loss"} <= first[0].keys()
    second = [*data, "--scst", "--samples", "2", "--save_steps", "1", "--eval_strategy", "steps"]
    words = flags(tmp_path, tmp_path / "second")
    words[1] = str(tmp_path / "first")
    assert main(["finetune", *words, *second]) == 0
    logged = state_of(tmp_path / "second")["log_history"]
    assert all(0 <= entry["reward_share"] <= 1 for entry in logged if "reward" in entry)
    card = (tmp_path / "second" / "README.md").read_text()
    assert "| scst | `True` |" in card
    assert "| learning_rate | `1e-05` |" in card  # of the second stage
    frequencies = tmp_path / "second" / "document_frequencies.npz"
    before = frequencies.stat().st_mtime_ns
    more = [*second, "--max_steps", "3", "--resume_from_checkpoint", "true"]
    assert main(["finetune", *words, *more]) == 0
    assert frequencies.stat().st_mtime_ns == before
    assert state_of(tmp_path / "second")["global_step"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "expected either --dataset, or --references and --images"),
        ("--dataset {world}/pictures --samples 1", "--samples 1: give 2 or more with --baseline mean"),
        ("--references {world}/questions.csv", "--references needs --images"),
        ("--dataset {world}/pictures --images {world}/pictures", "--images needs --references"),
        ("--dataset {world}/pictures --eval_images {world}/pictures", "--eval_images needs --eval_references"),
    ],
)
def test_half_of_the_captions_is_one_line(world: Path, tmp_path: Path, capsys, words: str, message: str):
    given = ["finetune", "--task", "captioning", *flags(world, tmp_path / "out"), *words.format(world=world).split()]
    try:
        code = main(given)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "recipe",
    sorted((Path(__file__).parent.parent / "trainers" / "recipes").glob("*.yaml")),
    ids=lambda path: path.stem,
)
def test_recipes_hold_flags_of_their_task(recipe: Path, world: Path, tmp_path: Path, capsys):
    """Each is read as far as the data, which it does not name."""
    with pytest.raises(SystemExit):
        main(["finetune", *flags(world, tmp_path), "--config", str(recipe)])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search("arguments are required: --(questions|glue_task|train_data)|expected either --dataset", error)


def test_evaluation_data_are_the_training_data_only_of_the_same_split(tmp_path: Path):
    def role(name: str, same_split: bool) -> str:
        return evaluation_source(str(tmp_path / name), str(tmp_path), same_split=same_split).role

    (tmp_path / "other").mkdir()
    assert (role(".", True), role(".", False), role("other", True)) == (TRAINED_ON, "evaluation", "evaluation")
