"""`vlkd finetune --task summarization`: a run on documents and summaries, and mistakes."""

import json
import logging
from pathlib import Path

import pytest
from transformers import AutoModelForImageTextToText, AutoTokenizer

from modeling_vlkd.commands.main import main
from modeling_vlkd.evaluation.summarization import GENERATION


COMMAND = "finetune --task summarization --checkpoint vlkd --train_data a.jsonl --eval_data a.jsonl --output_dir out"
QUICK = "--use_cpu true --disable_tqdm true --report_to none --max_steps 2 --per_device_train_batch_size 2"


@pytest.fixture
def place(tmp_path: Path, tiny_checkpoint: Path, monkeypatch) -> Path:
    (tmp_path / "vlkd").symlink_to(tiny_checkpoint)
    rows = [{"document": f"there is a {color} box here", "summary": f"a {color} box"} for color in ("red", "blue")]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_is_measured_by_rouge_and_loads(place: Path, capsys):
    words = [*COMMAND.split(), *QUICK.split(), "--generation_num_beams", "2", "--warmup_steps", "0"]
    assert main([*words, "--learning_rate", "1e-3", "--bridge_text_only", "false"]) == 0
    said = capsys.readouterr().out
    assert "is the rougeL of 2 summaries" in said
    model = AutoModelForImageTextToText.from_pretrained("out")
    assert model.config.bridge_text_only is False
    state = json.loads((place / "out" / "trainer_state.json").read_text())
    measured = [entry for entry in state["log_history"] if "eval_rougeL" in entry]
    assert measured[0]["step"] == 0
    assert {"eval_rouge1", "eval_rouge2", "eval_loss"} <= measured[-1].keys()
    card = (place / "out" / "README.md").read_text()
    assert "trained on documents and their summaries" in card
    for name in ("1", "2", "L"):  # the evaluation data are those that were trained on
        value = measured[-1][f"eval_rouge{name}"]
        assert f"| a.jsonl | ROUGE-{name}, of the training data | {value:.4g} |" in card


@pytest.mark.parametrize("beams", [1, 3])
def test_the_model_that_is_left_summarizes_by_itself_as_it_was_measured(beams: int, place: Path, caplog, monkeypatch):
    words = [*COMMAND.replace(" --eval_data a.jsonl", "").split(), *QUICK.split(), "--max_steps", "1", "--lora", "2"]
    assert main([*words, "--generation_num_beams", str(beams)]) == 0
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    caplog.clear()
    model, tokenizer = AutoModelForImageTextToText.from_pretrained("out"), AutoTokenizer.from_pretrained("out")
    model.save_pretrained("again")
    inputs = tokenizer(["there is a red box here"], return_tensors="pt")
    alone = model.generate(**inputs)
    assert not caplog.records
    assert 11 <= alone.shape[1] <= 62
    other = AutoModelForImageTextToText.from_pretrained("vlkd").eval()
    other.load_state_dict(model.state_dict())
    assert alone.equal(other.generate(**inputs, **(GENERATION | {"num_beams": beams})))


BAD = {
    "other columns": (f"{COMMAND} --summary_column title", "Line 1 of a.jsonl has no column 'title'"),
    "no data": (COMMAND.replace("--eval_data a.jsonl", "--eval_data b.jsonl"), "--eval_data b.jsonl does not exist"),
    "flag of run_summarization": (f"{COMMAND} --text_column document", "did you mean --document_column?"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_line(name: str, place: Path, capsys):
    words, message = BAD[name]
    assert main([*words.split(), "--use_cpu", "true"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
