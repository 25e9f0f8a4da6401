"""Runs lmms-eval and lm-eval themselves, each on tiny tasks, by their own commands: `make test-harnesses`.

They bring about eighty packages. So they have an environment of their own, and these tests are left out otherwise.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor
from modeling_vlkd.evaluation.continuations import score_continuations
from modeling_vlkd.evaluation.questions import make_question_set
from modeling_vlkd.evaluation.vlkd_model import VLKDAdapter
from modeling_vlkd.evaluation.vqa import evaluate_vqa
from modeling_vlkd.miniature.distilling import WEIGHTS, Teachers, distill
from modeling_vlkd.miniature.world import load_split, load_train_and_validation


pytestmark = [pytest.mark.harness, pytest.mark.timeout(900)]
QUESTIONS, STEPS = 60, 100  # test questions, about few pictures; and steps of distillation, for some right answers
COLORS = ["black", "blue", "brown", "gray", "green", "red", "teal", "yellow"]
UTILS = """
from PIL import Image

def visual(doc):
    return [Image.open(doc["image"]).convert("RGB")] * doc["copies"]

def question(doc, lmms_eval_specific_kwargs=None):
    return doc["question"] + lmms_eval_specific_kwargs["post_prompt"]

def caption_results(doc, results):
    return {"same": float(results[0] == doc["caption"])}
"""
DATA = """
dataset_path: json
dataset_kwargs: {data_files: {test: DATA.json}}
test_split: test
"""
LMMS_TASKS = {
    "tiny_vqa": """
output_type: generate_until
doc_to_visual: !function harness_utils.visual
doc_to_text: !function harness_utils.question
doc_to_target: answer
generation_kwargs: {until: ["\\n"], max_new_tokens: 16, temperature: 0, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}]
lmms_eval_specific_kwargs: {default: {post_prompt: "\\nAnswer the question using a single word or phrase."}}
metadata: [{version: 0.0}]
""",
    "tiny_caption": """
output_type: generate_until
doc_to_visual: !function harness_utils.visual
doc_to_text: "Provide a one-sentence caption for the provided image."
doc_to_target: caption
generation_kwargs: {until: ["ASSISTANT:"]}
process_results: !function harness_utils.caption_results
metric_list: [{metric: same, aggregation: mean, higher_is_better: true}]
metadata: [{version: 0.0}]
""",
    "tiny_color": """
output_type: multiple_choice
doc_to_visual: !function harness_utils.visual
doc_to_text: "what is the color of the shape?"
doc_to_choice: [COLORS]
doc_to_target: gold
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: [{version: 0.0}]
""".replace("COLORS", ", ".join(COLORS)),
}
LM_TASKS = {
    "tiny_choice": """
output_type: multiple_choice
doc_to_text: "Question: {{told}}\\nAnswer:"
doc_to_choice: [COLORS]
doc_to_target: gold
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""".replace("COLORS", ", ".join(COLORS)),
    "tiny_write": """
output_type: generate_until
doc_to_text: "Question: {{told}}\\nAnswer:"
doc_to_target: "{{color}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 8}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
    "tiny_roll": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{caption}}"
metric_list: [{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}]
""",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a checkpoint that knows its trade a little."""
    place = tmp_path_factory.mktemp("harness")
    train, _ = load_train_and_validation()
    distill(Teachers.load(WEIGHTS), train, place / "vlkd", replay=False, seed=0, steps=STEPS)
    return place


@pytest.fixture(scope="module")
def adapter(place) -> VLKDAdapter:
    model = VLKDForConditionalGeneration.from_pretrained(place / "vlkd")
    return VLKDAdapter(model, VLKDProcessor.from_pretrained(place / "vlkd"))


@pytest.fixture(scope="module")
def rows(place, adapter) -> list[dict]:
    """Test questions of easy-VQA; captions are what our own model says, and `told` can be answered from text."""
    test, rows = load_split("test"), []
    for number in range(QUESTIONS):
        path = place / f"{test.image_index[number]}.png"
        Image.fromarray(test.images[test.image_index[number]]).save(path)
        color = COLORS[number % len(COLORS)]
        row = {"image": str(path), "copies": 1, "question": test.questions[number], "answer": test.answers[number]}
        row |= {"told": f"is the {color} shape {color}, or what color is it?", "color": color}
        rows.append(row | {"gold": number % len(COLORS), "caption": adapter.caption([path])[0].text})
    return rows


def run(command: list[str], tasks: dict[str, str], rows: list[dict], folder: Path, checkpoint: Path):
    """Run the command of a harness on tasks that stand in a folder; results and samples go into its `out`."""
    folder.mkdir()
    (folder / "DATA.json").write_text(json.dumps(rows))
    (folder / "harness_utils.py").write_text(UTILS)
    for name, text in tasks.items():
        head = f"task: {name}" + DATA.replace("DATA", str(folder / "DATA"))
        (folder / f"{name}.yaml").write_text(head + text)
    words = ["--model", "vlkd", "--model_args", f"pretrained={checkpoint}", "--tasks", ",".join(tasks)]
    words += [
        "--include_path",
        str(folder),
        "--batch_size",
        "16",
        "--log_samples",
        "--output_path",
        str(folder / "out"),
    ]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *command, *words], capture_output=True, text=True, env=offline, cwd=folder)


def read_out(folder: Path, tasks: dict[str, str]) -> tuple[dict[str, dict], dict[str, list[dict]]]:
    """Read the figures of each task, and its samples in the order of the data."""
    [path] = folder.rglob("*results*.json")
    samples = {}
    for name in tasks:
        [file] = folder.rglob(f"*samples_{name}*.jsonl")
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        samples[name] = sorted(lines, key=lambda sample: sample["doc_id"])
    return json.loads(path.read_text())["results"], samples


@pytest.fixture(scope="module")
def lmms(place, rows) -> tuple[dict[str, dict], dict[str, list[dict]]]:
    done = run(["-m", "lmms_eval"], LMMS_TASKS, rows, place / "lmms", place / "vlkd")
    assert done.returncode == 0, done.stderr[-3000:]
    return read_out(place / "lmms", LMMS_TASKS)


@pytest.fixture(scope="module")
def lm(place, rows) -> tuple[dict[str, dict], dict[str, list[dict]]]:
    command = ["-m", "modeling_vlkd.evaluation.lm_harness", "run"]
    done = run(command, LM_TASKS, rows, place / "lm", place / "vlkd")
    assert done.returncode == 0, done.stderr[-3000:]
    return read_out(place / "lm", LM_TASKS)


def test_lmms_eval_gives_our_own_accuracy(lmms, rows, adapter):
    ours = evaluate_vqa(adapter, make_question_set(rows, adapter.model, adapter.processor))
    results, samples = lmms
    assert 0 < ours.accuracy < 1
    assert results["tiny_vqa"]["exact_match,none"] == pytest.approx(ours.accuracy)
    assert [sample["filtered_resps"] for sample in samples["tiny_vqa"]] == [[each.text] for each in ours.answers]


def test_lmms_eval_gets_our_captions(lmms, rows):
    results, samples = lmms
    assert results["tiny_caption"]["same,none"] == 1.0
    assert len({sample["filtered_resps"][0] for sample in samples["tiny_caption"]}) > 1


def choose_colors(adapter: VLKDAdapter, questions: list[str], image_embeds=None, index=None) -> list[int]:
    """The likeliest color for each question."""
    tokenizer = adapter.processor.tokenizer
    prompts = tokenizer(adapter.processor.question_prompts(questions))["input_ids"]
    scores = []
    for color in tokenizer([f" {color}" for color in COLORS], add_special_tokens=False)["input_ids"]:
        texts = [color] * len(questions)
        found = score_continuations(adapter.model, prompts, texts, tokenizer.mask_token_id, image_embeds, index)
        scores.append([score for score, _ in found])
    return torch.tensor(scores).argmax(dim=0).tolist()


def share(chosen: list[int], rows: list[dict]) -> float:
    return sum(each == row["gold"] for each, row in zip(chosen, rows)) / len(rows)


def test_lmms_eval_chooses_the_likeliest_of_several(lmms, rows, adapter):
    seen = adapter.look([row["image"] for row in rows])
    chosen = choose_colors(adapter, ["what is the color of the shape?"] * len(rows), seen, list(range(len(rows))))
    assert len(set(chosen)) > 1
    results, samples = lmms
    assert results["tiny_color"]["acc,none"] == pytest.approx(share(chosen, rows))
    losses = [[loss for loss, _ in map(read_pair, sample["filtered_resps"])] for sample in samples["tiny_color"]]
    assert [each.index(min(each)) for each in losses] == chosen


def read_pair(value) -> tuple[float, bool]:
    """A likelihood and whether it is greedy, as the samples have them: as a list, or as its text."""
    return json.loads(value.replace("(", "[").replace(")", "]").lower()) if isinstance(value, str) else value


def test_lmms_eval_is_told_what_a_vlkd_does_not_do(place, rows):
    two = [row | {"copies": 2} for row in rows[:3]]
    done = run(["-m", "lmms_eval"], {"tiny_vqa": LMMS_TASKS["tiny_vqa"]}, two, place / "two", place / "vlkd")
    assert "Example 0 of the task tiny_vqa has 2 pictures; a VLKD looks at one." in done.stderr + done.stdout
    sampled = LMMS_TASKS["tiny_vqa"].replace("do_sample: false", "do_sample: true")
    done = run(["-m", "lmms_eval"], {"tiny_vqa": sampled}, rows[:3], place / "sampled", place / "vlkd")
    assert "asks for samples (do_sample)" in done.stderr + done.stdout


def test_lm_eval_chooses_the_likeliest_of_several(lm, rows, adapter):
    chosen = choose_colors(adapter, [row["told"] for row in rows])
    assert share(chosen, rows) > 0
    assert lm[0]["tiny_choice"]["acc,none"] == pytest.approx(share(chosen, rows))


def test_lm_eval_gets_what_our_model_answers(lm, rows, adapter):
    greedy = VLKDAdapter(adapter.model, adapter.processor, num_beams=1, max_new_tokens=8, force_prefix=True)
    said = [answer.text for answer in greedy.answer(None, [row["told"] for row in rows])]
    results, samples = lm
    assert [sample["filtered_resps"] for sample in samples["tiny_write"]] == [[text] for text in said]
    right = sum(text == row["color"] for text, row in zip(said, rows)) / len(rows)
    assert results["tiny_write"]["exact_match,none"] == pytest.approx(right)


def test_lm_eval_gets_the_likelihood_of_whole_texts(lm, rows, adapter):
    tokenizer, total = adapter.processor.tokenizer, 0.0
    prompt = tokenizer("<mask>" * adapter.processor.num_question_masks + ".", return_tensors="pt")
    for row in rows:
        tokens = tokenizer(row["caption"], return_tensors="pt", add_special_tokens=False)["input_ids"]
        start = torch.tensor([[adapter.model.config.text_config.decoder_start_token_id, tokenizer.bos_token_id]])
        with torch.no_grad():
            logits = adapter.model(**prompt, decoder_input_ids=torch.cat([start, tokens[:, :-1]], dim=1)).logits[0, 1:]
        total += logits.log_softmax(dim=-1).gather(1, tokens[0, :, None]).sum().item()
    words = sum(len(row["caption"].split()) for row in rows)
    assert lm[0]["tiny_roll"]["word_perplexity,none"] == pytest.approx(math.exp(-total / words), rel=1e-3)
