"""Classifiers of texts: LAMB is timm's, all kinds of tasks are learnt, and CLIP stays as it is."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.optim import Lamb
from tiny_training import COLORS, SHAPES, tiny_model, tiny_processor
from transformers import AutoModelForSequenceClassification, TrainingArguments

from modeling_vlkd.evaluation.glue_files import GlueExample
from modeling_vlkd.evaluation.glue_tasks import TASKS
from modeling_vlkd.trainers.text_classification import (
    ClassificationTrainer,
    classification_examples,
    new_classifier,
)


SETTINGS = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", "seed": 0}
SCENES = [(color, shape) for color in COLORS for shape in SHAPES]
EXAMPLES = {
    "sst2": [GlueExample(n, (f"a {color} {shape}",), int(color == "red")) for n, (color, shape) in enumerate(SCENES)],
    "mnli": [
        GlueExample(n, (f"a {color} {shape}", f"is it {asked}?"), [color, "pink", shape].index(asked))
        for n, (color, shape, asked) in enumerate((c, s, a) for c, s in SCENES[:4] for a in (c, "pink", s))
    ],
    "stsb": [
        GlueExample(n, (f"a {color} {shape}", "a red circle"), 2.5 * (color == "red") + 2.5 * (shape == "circle"))
        for n, (color, shape) in enumerate(SCENES)
    ],
}


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def checkpoint(processor, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_model(processor).save_pretrained(folder)
    return str(folder)


def make_trainer(checkpoint: str, processor, name: str, folder: Path, lamb: bool = True, **settings):
    torch.manual_seed(0)
    task = TASKS[name]
    examples = classification_examples(EXAMPLES[name], processor.tokenizer, 64)
    args = TrainingArguments(folder, per_device_train_batch_size=12, **SETTINGS | settings)
    return ClassificationTrainer(
        new_classifier(checkpoint, task),
        args,
        task=task,
        lamb=lamb,
        train_dataset=examples,
        eval_dataset=examples,
        processing_class=processor,
    )


@pytest.mark.parametrize(
    ("name", "metric", "least"), [("sst2", "accuracy", 0.95), ("mnli", "accuracy", 0.6), ("stsb", "spearmanr", 0.8)]
)
def test_few_examples_are_learnt_with_lamb_and_clip_stays(
    name: str, metric: str, least: float, checkpoint, processor, tmp_path
):
    trainer = make_trainer(checkpoint, processor, name, tmp_path, max_steps=150, learning_rate=2e-2, warmup_steps=0.1)
    tower = {key: value.clone() for key, value in trainer.model.model.vision_tower.state_dict().items()}
    before = trainer.evaluate()[f"eval_{metric}"]
    trainer.train()
    assert type(trainer.optimizer.optimizer) is Lamb
    assert max(before, least) < trainer.evaluate()[f"eval_{metric}"]
    assert all(torch.equal(tower[key], value) for key, value in trainer.model.model.vision_tower.state_dict().items())
    trainer.save_model()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    inputs = processor.tokenizer("a red box", return_tensors="pt")
    torch.testing.assert_close(loaded(**inputs).logits, trainer.model.eval()(**inputs).logits)
    assert loaded.config.num_labels == TASKS[name].num_labels
    assert tuple(loaded.config.id2label.values()) == (TASKS[name].labels or ("stsb",))


def test_a_step_is_that_of_timm(checkpoint, processor, tmp_path):
    """Gradients are clipped once, by the Trainer; biases and norms have no decay."""
    settings = {"learning_rate": 0.02, "weight_decay": 0.1, "max_grad_norm": 0.05, "max_steps": 2}
    trainer = make_trainer(checkpoint, processor, "sst2", tmp_path, lr_scheduler_type="constant", **settings)
    reference = make_trainer(checkpoint, processor, "sst2", tmp_path).model.train()
    decayed = set(trainer.get_decay_parameter_names(reference))
    named = [(name, each) for name, each in reference.named_parameters() if each.requires_grad]
    optimizer = Lamb(
        [
            {"params": [each for name, each in named if name in decayed], "weight_decay": 0.1},
            {"params": [each for name, each in named if name not in decayed], "weight_decay": 0.0},
        ],
        lr=0.02,
        eps=1e-8,
        max_grad_norm=None,
    )
    batch = trainer.data_collator([trainer.train_dataset[place] for place in range(12)])
    for _ in range(2):
        optimizer.zero_grad()
        reference(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_([each for _, each in named], 0.05)
        optimizer.step()
    trainer.train()
    after = trainer.model.state_dict()
    for name, value in reference.state_dict().items():
        if name.endswith("k_proj.bias"):  # attention does not depend on it, so its gradient is noise
            continue
        torch.testing.assert_close(after[name], value, rtol=1e-4, atol=1e-6, msg=name)
    start = load_file(Path(checkpoint, "model.safetensors"))["model.text_projection.weight"]
    assert not torch.allclose(after["model.text_projection.weight"], start)


def test_without_lamb_the_arguments_choose(checkpoint, processor, tmp_path):
    trainer = make_trainer(checkpoint, processor, "sst2", tmp_path, lamb=False, optim="adafactor", max_steps=1)
    assert type(trainer.create_optimizer()).__name__ == "Adafactor"
    assert trainer.settings_of_run()["optim"] == "adafactor"
    assert make_trainer(checkpoint, processor, "sst2", tmp_path).settings_of_run()["optim"] == "lamb"


def test_a_head_for_other_labels_is_replaced_and_one_for_these_is_kept(checkpoint, processor, tmp_path):
    torch.manual_seed(1)
    new_classifier(checkpoint, TASKS["mnli"]).save_pretrained(tmp_path)
    same, other = (
        new_classifier(str(tmp_path), TASKS["mnli_mismatched"]),
        new_classifier(str(tmp_path), TASKS["rte"]),
    )
    head = AutoModelForSequenceClassification.from_pretrained(tmp_path).classification_head.out_proj.weight
    assert torch.equal(same.classification_head.out_proj.weight, head)
    assert other.classification_head.out_proj.weight.shape[0] == 2


def test_weights_that_are_missing_are_told(checkpoint, tmp_path):
    AutoModelForSequenceClassification.from_pretrained(checkpoint).config.save_pretrained(tmp_path)
    weights = load_file(Path(checkpoint, "model.safetensors"))
    del weights["model.text_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 of the model's tensors, such as model\.text_projection.weight"):
        new_classifier(str(tmp_path), TASKS["rte"])


@pytest.mark.parametrize("bridge", [True, False])
def test_texts_go_the_way_that_is_asked_for(bridge: bool, checkpoint, processor):
    torch.manual_seed(0)
    model = new_classifier(checkpoint, TASKS["rte"], bridge)
    assert model.config.bridge_text_only is bridge
    model(**processor.tokenizer("a red box", return_tensors="pt")).logits.sum().backward()
    assert (model.model.text_to_decoder.weight.grad is not None) is bridge


def test_examples_without_labels_are_told(processor):
    with pytest.raises(ValueError, match="Expected a label in every example, but 7 has none"):
        classification_examples([GlueExample(7, ("a",))], processor.tokenizer, 8)


def test_long_texts_are_cut(processor):
    [example] = classification_examples([GlueExample(0, ("a box " * 50, "red"), 1)], processor.tokenizer, 16)
    assert len(example["input_ids"]) == 16
    assert "red" in processor.tokenizer.decode(example["input_ids"])  # the longer of the two is cut
