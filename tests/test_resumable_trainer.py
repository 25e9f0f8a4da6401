"""Runs that are killed, and go on: what is on disk at each moment, and what becomes of it."""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from killed_child import die_at_each_moment
from safetensors.torch import load_file
from tiny_training import tiny_model, tiny_pairs, tiny_processor
from transformers.trainer_utils import get_last_checkpoint

from modeling_vlkd.trainers import VLKDDistillationConfig, VLKDDistillationTrainer
from modeling_vlkd.trainers.trained_on import OtherDataError
from modeling_vlkd.trainers.whole_checkpoints import CheckpointError


STEPS = 4


def make_trainer(folder, pairs=12, seed=0, **settings) -> VLKDDistillationTrainer:
    """A trainer of four steps that saves each; dropout makes random states count."""
    settings = {
        "max_steps": STEPS,
        "save_strategy": "steps",
        "save_steps": 1,
        "per_device_train_batch_size": 4,
    } | settings
    processor = tiny_processor()
    return VLKDDistillationTrainer(
        tiny_model(processor, seed=seed, dropout=0.1),
        VLKDDistillationConfig(
            str(folder), report_to="none", disable_tqdm=True, use_cpu=True, logging_steps=1, **settings
        ),
        train_dataset=tiny_pairs(pairs),
        eval_dataset=tiny_pairs(4) if "eval_strategy" in settings else None,
        processing_class=processor,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The folder of a run that was not interrupted, with all its checkpoints and the model."""
    trainer = make_trainer(tmp_path_factory.mktemp("whole"))
    trainer.train()
    trainer.save_model()
    return Path(trainer.args.output_dir)


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def go_on(folder, **settings) -> VLKDDistillationTrainer:
    """Resume with another model's weights, which the checkpoint has to replace."""
    trainer = make_trainer(folder, seed=1, **settings)
    trainer.train(resume_from_checkpoint=True)
    trainer.save_model()
    return trainer


def assert_same_end(folder: Path, whole: Path):
    """Weights, optimizer and losses at the end are those of the run that was not interrupted, bit for bit."""
    for name in ("model.safetensors", f"checkpoint-{STEPS}/model.safetensors"):
        first, second = load_file(whole / name), load_file(folder / name)
        assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())
    log, expected = (
        json.loads((each / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())["log_history"]
        for each in (folder, whole)
    )
    assert [entry["loss"] for entry in log] == [entry["loss"] for entry in expected]


def copy_over(source: Path, folder: Path):
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_killed_while_it_saves_has_a_whole_checkpoint_and_goes_on(every, whole, tmp_path):
    """At each moment the last checkpoint has all its files; the older one is deleted when it is there."""
    run, before = tmp_path / "run", tmp_path / "before"
    trainer = make_trainer(run, save_total_limit=1)
    found: dict[str, list[dict]] = {"checkpoint-2": [], "checkpoint-3": []}

    save = trainer._save_checkpoint

    def die_while_saving(model, trial):
        if trainer.state.global_step < 3:
            return save(model, trial)
        trainer.control.should_training_stop = True
        copy_over(run, before)
        for moment in die_at_each_moment(run, lambda: save(model, trial), every):
            last = Path(get_last_checkpoint(run))
            found[last.name].append(files_in(last))
            if moment:
                copy_over(run, tmp_path / f"killed with {last.name}")
                copy_over(before, run)

    trainer._save_checkpoint = die_while_saving
    trainer.train()
    assert [path.name for path in run.iterdir()] == ["checkpoint-3"]
    for name, folder in (("checkpoint-2", before), ("checkpoint-3", run)):
        expected = files_in(folder / name)
        assert {"model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"} <= expected.keys()
        assert len(found[name]) > 2
        for files in found[name]:
            assert files.keys() == expected.keys()
            for path, content in files.items():
                if path.endswith((".pt", ".pth", ".bin")):  # zip archives, whose padding differs
                    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None, path
                else:
                    assert content == expected[path], path
    for killed in tmp_path.glob("killed with *"):
        go_on(killed)
        assert_same_end(killed, whole)
        assert not (killed / "_unfinished").exists()


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_a_model_killed_while_it_is_saved_is_the_old_one_the_new_one_or_none(every, whole, tmp_path):
    """Into a folder with another model; with weights, all files belong together."""
    run, before, killed = (tmp_path / name for name in ("run", "before", "killed"))
    trainer = make_trainer(run)
    trainer.train()
    trainer.save_model()
    (run / "notes.txt").write_text("mine")
    copy_over(run, before)
    trainer.model.model.logit_scale.data.fill_(1.0)
    trainer.model.config.bridge_text_only = False
    trainer.processing_class.num_caption_masks = 7
    states = []
    for moment in die_at_each_moment(run, trainer.save_model, every):
        states.append({path: content for path, content in files_in(run).items() if "/" not in path})
        if moment:
            copy_over(run, killed)
            copy_over(before, run)
    old, new = (
        {path: content for path, content in files_in(each).items() if "/" not in path} for each in (before, run)
    )
    assert old["config.json"] != new["config.json"]
    assert old["model.safetensors"] != new["model.safetensors"]
    assert old.keys() == new.keys()
    assert old in states
    for files in states:
        assert "model.safetensors" not in files or files in (old, new)
        assert files["notes.txt"] == b"mine"
    assert go_on(killed).state.global_step == STEPS
    assert_same_end(killed, whole)
    assert not (killed / "_unfinished").exists()


def damage(path: Path, size: int | None):
    """Leave so many bytes of a file, or no file."""
    if size is None:
        path.unlink()
    else:
        os.truncate(path, size)


DAMAGES = [
    ("model.safetensors", 2000),
    ("optimizer.pt", 1000),
    ("trainer_state.json", 0),
    ("trainer_state.json", None),
]
MORE_DAMAGES = [("model.safetensors", None), ("scheduler.pt", 0), ("rng_state.pth", 1000), ("trainer_state.json", 100)]


@pytest.mark.parametrize(("name", "size"), DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_one_line(name, size, whole, tmp_path, caplog):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    damage(run / "checkpoint-4" / name, size)
    trainer = go_on(run)
    assert trainer.state.global_step == STEPS
    assert_same_end(run, whole)
    [line] = [record.getMessage() for record in caplog.records if record.name.startswith("modeling_vlkd")]
    assert "checkpoint-4" in line
    assert line.endswith(f"going on from {run / 'checkpoint-3'}.")
    aside = ["damaged-checkpoint-4"] if name != "trainer_state.json" or size is not None else []
    assert [path.name for path in run.iterdir() if path.name.startswith(("damaged", "_"))] == aside


@pytest.mark.parametrize(("name", "size"), DAMAGES + MORE_DAMAGES)
def test_a_damaged_checkpoint_that_is_named_is_refused_with_the_file(name, size, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    damage(run / "checkpoint-3" / name, size)
    before = files_in(run)
    with pytest.raises(CheckpointError, match=r"name another checkpoint, or `true` for the last whole one") as error:
        make_trainer(run).train(resume_from_checkpoint=str(run / "checkpoint-3"))
    file = "" if (name, size) == ("model.safetensors", None) else f"/{name}"
    assert str(error.value).startswith(f"{run}/checkpoint-3{file} ")
    assert files_in(run) == before


def test_a_run_without_a_whole_checkpoint_says_so(whole, tmp_path):
    with pytest.raises(CheckpointError, match="nowhere holds no checkpoint to resume from"):
        make_trainer(tmp_path / "nowhere").train(resume_from_checkpoint=True)
    run = tmp_path / "run"
    shutil.copytree(whole / "checkpoint-1", run / "checkpoint-1")
    damage(run / "checkpoint-1" / "optimizer.pt", 10)
    with pytest.raises(CheckpointError, match=r"holds no whole checkpoint: .*optimizer\.pt is truncated or damaged"):
        make_trainer(run).train(resume_from_checkpoint=True)


def test_the_best_checkpoint_is_known_by_its_name(tmp_path):
    """Also where it is the one just written, and after a death in the next one."""
    settings = {"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True, "save_total_limit": 1}
    settings |= {"metric_for_best_model": "eval_icti", "greater_is_better": True, "learning_rate": 1e-2}
    trainer = make_trainer(tmp_path / "run", **settings)
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    assert best == tmp_path / "run" / f"checkpoint-{trainer.state.best_global_step}"
    assert best.is_dir()
    assert trainer.state.best_global_step < STEPS
    state = json.loads((best / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(best)
    shutil.copytree(best, tmp_path / "run" / "_unfinished" / "checkpoint-4")
    resumed = make_trainer(tmp_path / "run", seed=1, **settings)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.best_model_checkpoint == str(best)
    assert torch.equal(resumed.model.lm_head.weight, trainer.model.lm_head.weight)


def test_checkpoints_without_an_optimizer_are_whole(tmp_path):
    make_trainer(tmp_path / "run", save_only_model=True, max_steps=2).train()
    assert not list((tmp_path / "run").rglob("optimizer.pt"))
    assert go_on(tmp_path / "run", save_only_model=True).state.global_step == STEPS


def test_a_step_may_be_saved_again(whole, tmp_path):
    """As by a run that goes on from an older checkpoint than the last; files of its owner are not looked at."""
    shutil.copytree(whole, tmp_path / "run")
    for name in ("scores.json", "averages.bin"):
        (tmp_path / "run" / "checkpoint-2" / name).write_text("[] ...")
    (tmp_path / "run" / "checkpoint-4" / "stray.txt").write_text("of the first run")
    make_trainer(tmp_path / "run").train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert not (tmp_path / "run" / "checkpoint-4" / "stray.txt").exists()
    assert not (tmp_path / "run" / "_unfinished").exists()
    assert_same_end(tmp_path / "run", whole)


def test_a_checkpoint_of_another_run_leaves_that_run_alone(whole, tmp_path):
    """Its folder may be where another process is writing just now."""
    other = tmp_path / "other"
    shutil.copytree(whole, other)
    damage(other / "checkpoint-4" / "optimizer.pt", 10)
    shutil.copytree(whole / "checkpoint-4", other / "_unfinished" / "checkpoint-5")
    before = files_in(other)
    make_trainer(tmp_path / "run").train(resume_from_checkpoint=str(other / "checkpoint-3"))
    assert files_in(other) == before
    assert (tmp_path / "run" / "checkpoint-4").is_dir()


def test_a_run_goes_on_with_as_many_examples_only(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    with pytest.raises(
        OtherDataError, match=r"trained on data .* \(12 examples\), and not on data .* \(16 examples\)"
    ):
        make_trainer(tmp_path / "run", pairs=16).train(resume_from_checkpoint=True)
    (tmp_path / "run" / "checkpoint-4" / "trained_on.json").unlink()  # as checkpoints of other trainers are
    make_trainer(tmp_path / "run", pairs=16).train(resume_from_checkpoint=True)


@pytest.mark.slow  # interpreters that import torch and transformers, one after the other
def test_a_process_killed_at_random_moments_comes_to_the_same_end(whole, tmp_path):
    run, draw = tmp_path / "run", random.Random(0)
    code = "import sys; from test_resumable_trainer import run_once; run_once(sys.argv[1])"
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", code, str(run)], cwd=Path(__file__).parent)
        while process.poll() is None and not (run / "begun").exists():
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        (run / "begun").unlink()
    subprocess.run([sys.executable, "-c", code, str(run)], cwd=Path(__file__).parent, check=True)
    assert_same_end(run, whole)


def run_once(folder: str):
    """Train, or go on training, as a process that knows only the folder."""
    torch.set_num_threads(1)
    trainer = make_trainer(folder, save_total_limit=1)
    os.makedirs(folder, exist_ok=True)
    Path(folder, "begun").touch()
    trainer.train(resume_from_checkpoint=get_last_checkpoint(folder) is not None)
    trainer.save_model()


@pytest.mark.slow  # interpreters that import torch and transformers
def test_two_processes_write_one_checkpoint_and_stop_together(tmp_path):
    """Ctrl-C reaches one of them; both finish the step, write one whole checkpoint, and go on from it."""
    script = Path(__file__).parent / "interrupt_two_processes.py"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes=2", "--multi_gpu"]
    launch += ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0", script]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for name, step in (("whole", 0), ("run", 2), ("run", 0)):
        subprocess.run([*map(str, launch), str(tmp_path / name), str(step)], check=True, env=environment, timeout=200)
        if step:
            assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-2"]
            names = set(files_in(tmp_path / "run" / "checkpoint-2"))
            assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt", "trainer_state.json"} <= names
    assert_same_end(tmp_path / "run", tmp_path / "whole")
