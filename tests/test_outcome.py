"""The line that says how a training run ended."""

import math
import shlex

import pytest
import torch
from PIL import Image
from transformers import Trainer, TrainingArguments

from modeling_vlkd.commands.outcome import diverged, example_command, refuse_diverged, warn_of_rise


@pytest.fixture
def trainer(tmp_path) -> Trainer:
    return Trainer(torch.nn.Linear(2, 2), TrainingArguments(str(tmp_path), use_cpu=True))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_named(trainer, value):
    trainer.state.log_history = [{"loss": 3.0, "step": 1}, {"loss": 2.0, "itcl": value, "step": 2}, {"eval_loss": 1.0}]
    assert diverged(trainer) == f"itcl was {value} at step 2"
    with pytest.raises(ValueError, match=r"The training diverged: itcl .* in out is of no use; .* below 0\.001"):
        refuse_diverged(diverged(trainer), "out", 1e-3)


def test_weights_that_are_no_numbers_are_named_though_the_log_shows_none(trainer):
    """transformers does not log losses that are NaN; and a gradient may overflow when its step is skipped."""
    trainer.state.log_history = [{"loss": 2.0, "grad_norm": math.inf, "step": 2}]
    assert diverged(trainer) is None
    refuse_diverged(None, "out", 1e-3)
    with torch.no_grad():
        trainer.model.bias[1] = math.nan
    assert diverged(trainer) == "weights are NaN or infinite"


@pytest.mark.parametrize(
    ("losses", "said"), [([3.0, 5.0, 2.0], ""), ([3.0, 2.0, 179.0], "from 3 to 179"), ([3.0], ""), ([], "")]
)
def test_a_loss_that_rose_is_said(losses, said, capsys):
    warn_of_rise("vlkd distill", [{"loss": loss} for loss in losses] + [{"train_loss": 999.0}])
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == bool(said)


def test_a_loss_beside_a_reward_is_not_judged(capsys):
    warn_of_rise("vlkd finetune", [{"loss": loss, "reward": 0.1} for loss in (-0.5, -0.2)])
    assert capsys.readouterr().err == ""


def test_an_example_asks_about_a_picture_of_the_users(tmp_path):
    assert "YOUR_PICTURE.jpg 'what is in the picture?'" in example_command("out", tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,caption\n")
    (tmp_path / "my pictures").mkdir()
    picture = tmp_path / "my pictures" / "a.PNG"
    Image.new("RGB", (4, 4)).save(picture)
    for pictures in (tmp_path, picture):
        words = shlex.split(example_command("my out", pictures, "it's what?"))
        assert words == ["vlkd", "answer", str(picture), "it's what?", "--checkpoint", "my out"]
