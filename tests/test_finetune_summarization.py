"""`vlkd finetune --task summarization`: a run on documents and summaries, and mistakes."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForImageTextToText

from modeling_vlkd.commands.main import main


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
    assert [entry["step"] for entry in measured][0] == 0
    assert {"eval_rouge1", "eval_rouge2", "eval_loss"} <= measured[-1].keys()
    assert "trained on documents and their summaries" in (place / "out" / "README.md").read_text()


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
