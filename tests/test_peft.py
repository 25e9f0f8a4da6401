"""Adapters of peft: the default targets of LoRA, training, saving, loading and merging."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForSeq2SeqLM, LoraConfig, PeftModel, get_peft_model
from random_weights import randomize
from stranger import FORGET_THE_PACKAGE
from tiny_training import CAPTIONS, DIM, tiny_model, tiny_pairs, tiny_processor
from torch import nn
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from modeling_vlkd import VLKDForConditionalGeneration, VLKDModel
from modeling_vlkd.registration import LORA_TARGETS
from modeling_vlkd.trainers import QuestionSet, VLKDDataCollator, VLKDDistillationConfig, VLKDDistillationTrainer


ROOT = Path(__file__).parent.parent
BRIDGE = ["text_projection", "text_to_decoder", "image_to_decoder"]


def first_output(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**inputs)[0]


@pytest.mark.parametrize("tower", ["vit", "resnet", "siglip"])  # all have a q_proj and a v_proj
def test_lora_goes_into_bart_by_default(make_model, tower: str):
    expected = {
        f"language_model.{part}.layers.{layer}.{attention}.{name}"
        for part, attentions in {"encoder": ["self_attn"], "decoder": ["self_attn", "encoder_attn"]}.items()
        for layer in range(2)
        for attention in attentions
        for name in ("q_proj", "v_proj")
    }
    assert set(get_peft_model(make_model(tower, VLKDModel), LoraConfig()).targeted_module_names) == expected
    whole = get_peft_model(make_model(tower), LoraConfig())
    assert set(whole.targeted_module_names) == {f"model.{name}" for name in expected}
    trainable = [name for name, parameter in whole.named_parameters() if parameter.requires_grad]
    assert len(trainable) == 2 * len(expected)
    assert all("lora_" in name and "vision_tower" not in name for name in trainable)


def run(code: str, folder: Path) -> str:
    """Run code in a fresh process, since a process imports peft only once; return what it printed."""
    environment = {**os.environ, "HF_MODULES_CACHE": str(folder)}
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


PRINT_TARGETS = """
import sys
from transformers import AutoModel
model = AutoModel.from_pretrained({checkpoint!r}, trust_remote_code={trust})
from peft import LoraConfig, get_peft_model
print(*sorted(set(get_peft_model(model, LoraConfig({arguments})).targeted_module_names)))
"""


@pytest.mark.parametrize(
    "imports",
    ["import peft; import modeling_vlkd", "import modeling_vlkd"],
    ids=["peft first", "peft after the model"],
)
def test_lora_finds_its_targets_in_any_order_of_imports(tiny_checkpoint: Path, make_model, tmp_path, imports: str):
    expected = get_peft_model(make_model(model_class=VLKDModel), LoraConfig()).targeted_module_names
    assert len(expected) == 12
    code = PRINT_TARGETS.format(checkpoint=str(tiny_checkpoint), trust=False, arguments="")
    check = "from modeling_vlkd.registration import PeftFinder\nassert not [finder for finder in sys.meta_path if "
    assert run(f"{imports}\n{code}\n{check}isinstance(finder, PeftFinder)]", tmp_path).split() == sorted(expected)


def test_without_the_package_lora_needs_its_targets_named(tiny_checkpoint: Path, make_model, tmp_path: Path):
    """Code from the Hub registers nothing with peft; docs/adapters.md has the expression to give."""
    without, named = (
        PRINT_TARGETS.format(checkpoint=str(tiny_checkpoint), trust=True, arguments=arguments)
        for arguments in ("", f"target_modules={LORA_TARGETS!r}")
    )
    refused = f"try:\n    exec({without!r})\nexcept ValueError as error:\n    print(str(error).splitlines()[0])"
    message, found = run(f"{FORGET_THE_PACKAGE}\n{refused}\n{named}", tmp_path).splitlines()
    assert "Please specify `target_modules`" in message
    expected = get_peft_model(make_model(model_class=VLKDModel), LoraConfig()).targeted_module_names
    assert found.split() == sorted(expected)
    assert f'target_modules=r"{LORA_TARGETS}"' in (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def examples() -> list[dict]:
    rows = torch.randn(len(CAPTIONS), 1, DIM, generator=torch.Generator().manual_seed(0))
    return [
        {"image_embeds": row, "question": "what is it?", "answer": caption} for row, caption in zip(rows, CAPTIONS)
    ]


@pytest.mark.parametrize("bridge", [None, BRIDGE], ids=["adapters", "adapters and bridge"])
def test_trainer_trains_the_adapters_alone(examples, tmp_path, bridge: list[str] | None):
    processor = tiny_processor()
    model = tiny_model(processor)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = LoraConfig(task_type="SEQ_2_SEQ_LM", r=16, lora_alpha=32, modules_to_save=bridge)
    trainer = Seq2SeqTrainer(
        get_peft_model(model, config),
        Seq2SeqTrainingArguments(
            tmp_path / "run",
            **{"max_steps": 60, "learning_rate": 1e-2, "per_device_train_batch_size": 12, "logging_steps": 20},
            **{"report_to": "none", "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", "seed": 0},
            **{"predict_with_generate": True, "remove_unused_columns": False, "label_names": ["labels"]},
        ),
        data_collator=VLKDDataCollator(processor, model),
        train_dataset=examples,
        eval_dataset=examples[:2],
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.5
    assert "eval_loss" in trainer.evaluate()  # it also generates

    trained = {name.replace("base_layer.", ""): tensor for name, tensor in model.state_dict().items()}
    for name, tensor in before.items():
        part = name.removeprefix("model.").removesuffix(".weight")
        if bridge and part in BRIDGE:
            assert not torch.equal(tensor, trained[f"model.{part}.modules_to_save.default.weight"]), name
        else:
            assert torch.equal(tensor, trained[name]), name

    trainer.save_model(tmp_path / "adapter")
    files = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= files
    assert "model.safetensors" not in files
    again = PeftModel.from_pretrained(tiny_model(processor), tmp_path / "adapter")
    batch = VLKDDataCollator(processor, model)(examples)
    assert torch.equal(first_output(again, batch), first_output(trainer.model, batch))


@pytest.mark.parametrize("bridge", [None, BRIDGE], ids=["adapters", "adapters and bridge"])
def test_distillation_trains_adapters_saves_them_and_resumes(tmp_path, bridge: list[str] | None):
    processor = tiny_processor()

    def trainer_of(folder: str, steps: int) -> VLKDDistillationTrainer:
        torch.manual_seed(1)  # of the adapters; a resumed run reads its own
        config = LoraConfig(task_type="SEQ_2_SEQ_LM", modules_to_save=bridge)
        return VLKDDistillationTrainer(
            get_peft_model(tiny_model(processor), config),
            VLKDDistillationConfig(
                tmp_path / folder,
                **{"max_steps": steps, "learning_rate": 1e-2, "per_device_train_batch_size": 4, "logging_steps": 1},
                **{"save_steps": 2, "report_to": "none", "disable_tqdm": True, "use_cpu": True, "warmup_steps": 0},
                lr_scheduler_type="constant",
            ),
            train_dataset=tiny_pairs(),
            eval_dataset=tiny_pairs(4),
            processing_class=processor,
            question_set=QuestionSet(["what is it?"], ["red"], torch.ones(1, 1, DIM)),
        )

    before = tiny_model(processor).state_dict()
    trainer = trainer_of("whole", 3)
    trainer.train()
    model = trainer.model.get_base_model()
    trained = {name.replace("base_layer.", ""): tensor for name, tensor in model.state_dict().items()}
    for name in bridge or []:
        assert torch.equal(before[f"model.{name}.weight"], trained[f"model.{name}.original_module.weight"])
        assert not torch.equal(before[f"model.{name}.weight"], trained[f"model.{name}.modules_to_save.default.weight"])
    # The temperature does not change either: it is a lone parameter, and peft adapts modules.
    assert all(torch.equal(before[name], trained[name]) for name in before.keys() & trained.keys())
    assert "model.logit_scale" in trained
    assert all(trained[name].any() for name in trained if "lora_B" in name)  # they start at zero
    for entry in trainer.state.log_history[:3]:
        assert entry["loss"] == pytest.approx(1000 * entry["ttdm"] + entry["itcl"] + entry["icti"], rel=1e-5)
        assert entry["logit_scale"] == pytest.approx(1 / 0.07)
    expected = trainer.evaluate()["eval_loss"]
    trainer.create_model_card()

    trainer.save_model(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    again = PeftModel.from_pretrained(tiny_model(processor), tmp_path / "adapter")
    reloaded = VLKDDistillationTrainer(
        again, trainer.args, eval_dataset=tiny_pairs(4), processing_class=processor
    ).evaluate()["eval_loss"]
    assert reloaded == pytest.approx(expected, rel=1e-6)

    trainer_of("part", 2).train()
    resumed = trainer_of("part", 3)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.log_history[2]["loss"] == trainer.state.log_history[2]["loss"]
    whole, part = trainer.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(whole[name], part[name]) for name in whole)


@pytest.fixture(scope="module")
def adapter(tiny_checkpoint: Path, tmp_path_factory) -> Path:
    """Save an adapter with the bridge, whose weights are random."""
    folder = tmp_path_factory.mktemp("adapter")
    base = VLKDForConditionalGeneration.from_pretrained(tiny_checkpoint)
    adapted = get_peft_model(base, LoraConfig(task_type="SEQ_2_SEQ_LM", modules_to_save=BRIDGE))
    for module in adapted.modules():
        if isinstance(module, nn.ModuleDict):  # peft keeps what it adds in these
            randomize(module, seed=3)
    adapted.save_pretrained(folder)
    return folder


def test_adapters_are_loaded_in_every_way(tiny_checkpoint: Path, adapter: Path, inputs):
    load = VLKDForConditionalGeneration.from_pretrained
    base, adapted = load(tiny_checkpoint), PeftModel.from_pretrained(load(tiny_checkpoint), adapter)
    expected = first_output(adapted, inputs)
    assert not torch.allclose(expected, first_output(base, inputs), atol=1e-2)
    by_method = load(tiny_checkpoint)
    by_method.load_adapter(adapter)
    for model in (by_method, load(adapter), AutoPeftModelForSeq2SeqLM.from_pretrained(adapter)):
        assert torch.equal(first_output(model, inputs), expected)
    written = adapted.generate(**inputs, max_new_tokens=8, num_beams=2)
    assert torch.equal(by_method.generate(**inputs, max_new_tokens=8, num_beams=2), written)
    with adapted.disable_adapter():
        assert torch.equal(first_output(adapted, inputs), first_output(base, inputs))


def test_a_merged_model_is_a_whole_checkpoint(tiny_checkpoint: Path, adapter: Path, inputs, tmp_path):
    adapted = PeftModel.from_pretrained(VLKDForConditionalGeneration.from_pretrained(tiny_checkpoint), adapter)
    expected = first_output(adapted, inputs)
    merged = adapted.merge_and_unload()
    assert type(merged) is VLKDForConditionalGeneration
    torch.testing.assert_close(first_output(merged, inputs), expected, rtol=1e-4, atol=1e-4)
    merged.save_pretrained(tmp_path)
    loaded, info = VLKDForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert torch.equal(first_output(loaded, inputs), first_output(merged, inputs))
