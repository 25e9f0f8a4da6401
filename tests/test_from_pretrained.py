"""Weights from disk and back: saving, loading, assembling from a CLIP and a BART, offloading, resizing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import DIM, VISION_CONFIGS, WIDTH
from random_weights import randomize
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForVisualQuestionAnswering,
    AutoModelForZeroShotImageClassification,
    BartForConditionalGeneration,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipConfig,
    SiglipModel,
)

from modeling_vlkd import (
    CLIPResNetVisionConfig,
    CLIPResNetVisionModelWithProjection,
    VLKDForConditionalGeneration,
    VLKDForSequenceClassification,
    VLKDForZeroShotImageClassification,
    VLKDModel,
)


CLASSES = [
    VLKDModel,
    VLKDForConditionalGeneration,
    VLKDForSequenceClassification,
    VLKDForZeroShotImageClassification,
]


def first_output(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**inputs)[0]


@pytest.mark.parametrize("tower", VISION_CONFIGS)
@pytest.mark.parametrize("model_class", CLASSES)
def test_saved_and_loaded_model_is_the_same(make_model, inputs, tmp_path, model_class, tower: str):
    model = make_model(tower, model_class)
    model.save_pretrained(tmp_path)
    loaded, info = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert torch.equal(first_output(loaded, inputs), first_output(model, inputs))


def test_the_format_of_checkpoints_stays(tiny_checkpoint: Path):
    """Folders that were saved before have these tensors, settings and classes; others would no longer load."""
    parts = {name.removeprefix("model.").split(".")[0] for name in load_file(tiny_checkpoint / "model.safetensors")}
    bridge = {"text_projection", "text_to_decoder", "image_to_decoder", "logit_scale"}
    assert parts == {"vision_tower", "language_model", "final_logits_bias"} | bridge
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    assert config["model_type"] == "vlkd"
    own = {"projection_dim", "text_pooling", "freeze_vision_tower", "bridge_text_only", "logit_scale_init_value"}
    assert own | {"vision_config", "text_config"} <= set(config)
    assert config["auto_map"]["AutoModelForImageTextToText"] == "modeling_vlkd.VLKDForConditionalGeneration"
    assert config["auto_map"]["AutoProcessor"] == "processing_vlkd.VLKDProcessor"
    generation = json.loads((tiny_checkpoint / "generation_config.json").read_text())
    assert {"force_prefix", "mask_token_id"} <= set(generation)
    processor = json.loads((tiny_checkpoint / "processor_config.json").read_text())
    assert {"num_caption_masks", "num_question_masks"} <= set(processor)


def test_tied_weights_are_saved_once_and_stay_tied(make_model, tmp_path):
    make_model().save_pretrained(tmp_path)
    model = VLKDForConditionalGeneration.from_pretrained(tmp_path)
    size = model.lm_head.weight.shape
    saved = [name for name, tensor in load_file(tmp_path / "model.safetensors").items() if tensor.shape == size]
    assert saved == ["model.language_model.shared.weight"]
    language_model = model.model.language_model
    assert model.lm_head.weight is language_model.shared.weight
    assert language_model.encoder.embed_tokens.weight is language_model.shared.weight
    assert language_model.decoder.embed_tokens.weight is language_model.shared.weight


def test_heads_are_exchanged_over_the_same_body(make_model, inputs, tmp_path):
    """Load a captioner as bare model and as classifier, whose head alone is new; load the bare model as captioner."""
    captioner = make_model("resnet", num_labels=5)
    captioner.save_pretrained(tmp_path / "captioner")
    body, info = VLKDModel.from_pretrained(tmp_path / "captioner", output_loading_info=True)
    assert not any(info.values())
    assert torch.equal(first_output(body, inputs), first_output(captioner.model, inputs))
    classifier, info = VLKDForSequenceClassification.from_pretrained(tmp_path / "captioner", output_loading_info=True)
    assert {name.split(".")[0] for name in info["missing_keys"]} == {"classification_head"}
    assert not info["unexpected_keys"]
    assert torch.equal(first_output(classifier.model, inputs), first_output(captioner.model, inputs))
    assert first_output(classifier, inputs).shape == (3, 5)
    body.save_pretrained(tmp_path / "body")
    again = VLKDForConditionalGeneration.from_pretrained(tmp_path / "body")
    with torch.no_grad():
        again.final_logits_bias.copy_(captioner.final_logits_bias)
    assert torch.equal(first_output(again, inputs), first_output(captioner, inputs))


@pytest.mark.parametrize(
    ("auto_class", "model_class"),
    [
        (AutoModel, VLKDModel),
        (AutoModelForImageTextToText, VLKDForConditionalGeneration),
        (AutoModelForVisualQuestionAnswering, VLKDForConditionalGeneration),
        (AutoModelForSeq2SeqLM, VLKDForConditionalGeneration),
        (AutoModelForSequenceClassification, VLKDForSequenceClassification),
        (AutoModelForZeroShotImageClassification, VLKDForZeroShotImageClassification),
    ],
)
def test_auto_classes_find_ours(tiny_checkpoint: Path, auto_class, model_class):
    assert type(auto_class.from_pretrained(tiny_checkpoint)) is model_class


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_writes_text(tiny_checkpoint: Path, inputs, dtype: torch.dtype):
    model = VLKDForConditionalGeneration.from_pretrained(tiny_checkpoint, dtype=dtype)
    assert {tensor.dtype for tensor in model.parameters()} == {dtype}
    half = {**inputs, "pixel_values": inputs["pixel_values"].to(dtype)}
    assert model.generate(**half, max_new_tokens=5, num_beams=2).shape[0] == 3


@pytest.mark.filterwarnings("ignore:The following device_map keys:UserWarning")  # accelerate means lone tensors
@pytest.mark.parametrize("share", [0.3, 0.7, 0.9])
@torch.no_grad()
def test_parts_may_be_offloaded_to_disk(model, inputs, tmp_path, share: float):
    """With `device_map`, accelerate loads each part for its `forward`; `generate()` uses some parts without it."""
    model.save_pretrained(tmp_path / "checkpoint")
    memory = {"cpu": int(share * sum(parameter.nbytes for parameter in model.parameters()))}
    offloaded = VLKDForConditionalGeneration.from_pretrained(
        tmp_path / "checkpoint", device_map="auto", max_memory=memory, offload_folder=tmp_path / "offload"
    )
    assert "disk" in offloaded.hf_device_map.values()
    assert torch.equal(first_output(offloaded, inputs), first_output(model, inputs))
    settings = {"max_new_tokens": 8, "num_beams": 2}
    assert torch.equal(offloaded.generate(**inputs, **settings), model.generate(**inputs, **settings))
    rows = offloaded.get_image_rows(inputs["pixel_values"])
    assert torch.equal(rows, model.get_image_rows(inputs["pixel_values"]))


@pytest.mark.filterwarnings("ignore:The following device_map keys:UserWarning")  # accelerate means lone tensors
@torch.no_grad()
def test_device_map_may_be_given_part_by_part(make_model, inputs, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path / "checkpoint")
    parts = {"model.vision_tower": "disk", "model.image_to_decoder": "disk"}
    for name in ("language_model", "text_projection", "text_to_decoder", "logit_scale"):
        parts[f"model.{name}"] = "cpu"
    parts |= {"lm_head": "cpu", "final_logits_bias": "cpu"}
    loaded = VLKDForConditionalGeneration.from_pretrained(
        tmp_path / "checkpoint", device_map=parts, offload_folder=tmp_path / "offload"
    )
    assert loaded.hf_device_map == parts
    assert loaded.model.vision_tower.visual_projection.weight.is_meta
    assert torch.equal(first_output(loaded, inputs), first_output(model, inputs))


@pytest.mark.parametrize(
    ("asked", "vision", "text"),
    [
        ("eager", "eager", "eager"),
        ("sdpa", "sdpa", "sdpa"),
        ({"vision_config": "eager", "text_config": "sdpa"}, "eager", "sdpa"),
        ({"text_config": "eager"}, "sdpa", "eager"),
    ],
)
def test_attention_is_chosen_for_the_whole_or_for_each_part(tiny_checkpoint, inputs, asked, vision: str, text: str):
    model = VLKDForConditionalGeneration.from_pretrained(tiny_checkpoint, attn_implementation=asked)
    assert model.model.vision_tower.config._attn_implementation == vision
    assert model.model.language_model.config._attn_implementation == text
    expected = first_output(VLKDForConditionalGeneration.from_pretrained(tiny_checkpoint), inputs)
    torch.testing.assert_close(first_output(model, inputs), expected, rtol=1e-4, atol=1e-4)


def test_attention_that_is_not_there_is_refused(tiny_checkpoint: Path):
    with pytest.raises((ImportError, ValueError), match="FlashAttention2 has been toggled on, but"):
        VLKDForConditionalGeneration.from_pretrained(tiny_checkpoint, attn_implementation="flash_attention_2")
    with pytest.raises(ValueError, match='attn_implementation="flesh"'):
        VLKDForConditionalGeneration.from_pretrained(tiny_checkpoint, attn_implementation="flesh")


LOADING = """
import sys, threading, time
import torch
from modeling_vlkd import VLKDForConditionalGeneration

def private_bytes():  # without mapped files, which the system may drop from memory
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return 1024 * int(lines["RssAnon"].split()[0])

def watch():
    while not done:
        seen.append(private_bytes())
        time.sleep(0.001)

VLKDForConditionalGeneration.from_pretrained({small!r})  # memory that the first loading takes for any size
for dtype in (torch.bfloat16, torch.float32):
    before, seen, done = private_bytes(), [], []
    watcher = threading.Thread(target=watch)
    watcher.start()
    model = VLKDForConditionalGeneration.from_pretrained({large!r}, dtype=dtype)
    done.append(True)
    watcher.join()
    print((max(seen) - before) / sum(parameter.nbytes for parameter in model.parameters()))
    del model
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_loading_holds_the_weights_once(make_config, tiny_checkpoint: Path, tmp_path):
    text = {"d_model": 512, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048, "vocab_size": 20_000}
    VLKDForConditionalGeneration(make_config(text=text)).save_pretrained(tmp_path)
    code = LOADING.format(small=str(tiny_checkpoint), large=str(tmp_path))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    converted, as_stored = map(float, result.stdout.split())
    assert converted < 1.3
    assert as_stored < 0.5  # the file itself, mapped into memory


@torch.no_grad()
def test_model_is_exported(make_model, inputs):
    """Export by `torch.export`, as one graph."""
    model = make_model("resnet")
    arguments = {**inputs, "decoder_input_ids": inputs["input_ids"][:, :4], "use_cache": False}
    exported = torch.export.export(model, (), arguments).module()
    changed = {**arguments, "pixel_values": arguments["pixel_values"].roll(1, 0)}
    torch.testing.assert_close(exported(**changed).logits, model(**changed).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tower", ["vit", "resnet"])
@torch.no_grad()
def test_model_is_exported_for_any_batch_size(make_model, inputs, tower: str):
    model = make_model(tower)
    arguments = {**inputs, "decoder_input_ids": inputs["input_ids"][:, :4], "use_cache": False}
    batch = torch.export.Dim("batch", min=2, max=64)
    shapes = {name: {0: batch} if torch.is_tensor(value) else None for name, value in arguments.items()}
    exported = torch.export.export(model, (), arguments, dynamic_shapes=shapes).module()
    for count in (2, 6):
        more = {k: torch.cat([v, v])[:count] if torch.is_tensor(v) else v for k, v in arguments.items()}
        torch.testing.assert_close(exported(**more).logits, model(**more).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [10, -20], ids=["more", "fewer"])
@torch.no_grad()
def test_vocabulary_may_be_resized(make_model, inputs, tmp_path, size: int):
    model = make_model()
    bias = model.final_logits_bias
    before = model.config.text_config.vocab_size
    safe = {**inputs, "input_ids": inputs["input_ids"].clamp(max=before - 21)}
    expected = first_output(model, safe)
    model.resize_token_embeddings(before + size, mean_resizing=False)
    assert model.config.text_config.vocab_size == before + size
    assert model.lm_head.weight is model.model.language_model.shared.weight
    kept = min(before, before + size)
    assert torch.equal(model.final_logits_bias[:, :kept], bias[:, :kept])
    logits = first_output(model, safe)
    assert logits.shape[-1] == before + size
    torch.testing.assert_close(logits[..., :kept], expected[..., :kept])
    assert model(**safe, labels=safe["input_ids"]).loss.isfinite()
    model.save_pretrained(tmp_path)
    loaded = VLKDForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(first_output(loaded, safe), logits)


def test_loaded_clip_is_frozen(tiny_checkpoint: Path):
    """`from_pretrained` puts in new parameters after `__init__`, and these have to be frozen, too."""
    for model_class in CLASSES:
        model = model_class.from_pretrained(tiny_checkpoint)
        tower = model.base_model.vision_tower
        assert not any(parameter.requires_grad for parameter in tower.parameters())
        assert model.base_model.text_projection.weight.requires_grad
        model.train()
        assert not any(module.training for module in tower.modules())
    free = VLKDForConditionalGeneration.from_pretrained(tiny_checkpoint, freeze_vision_tower=False)
    assert all(parameter.requires_grad for parameter in free.parameters())
    assert free.train().model.vision_tower.training


def save_vision_source(kind: str, folder: Path) -> nn.Module:
    """Save one kind of checkpoint that holds a vision tower, and return the model."""
    if kind == "siglip":
        text = {"vocab_size": 50, "hidden_size": DIM, "intermediate_size": 24, "num_hidden_layers": 1}
        text |= {"num_attention_heads": 2, "max_position_embeddings": 12}
        source = SiglipModel(SiglipConfig(vision_config=VISION_CONFIGS["siglip"], text_config=text))
    elif kind == "resnet":
        source = CLIPResNetVisionModelWithProjection(CLIPResNetVisionConfig(**VISION_CONFIGS["resnet"]))
    else:
        source = CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION_CONFIGS["vit"]))
    randomize(source).save_pretrained(folder)
    return source


@torch.no_grad()
def test_clip_and_bart_are_assembled_unchanged(clip_folder: Path, bart_folder: Path, inputs):
    model = VLKDForConditionalGeneration.from_vision_text_pretrained(
        clip_folder, bart_folder, bridge_text_only=False, text_pooling="mean"
    )
    assert not model.training
    assert model.config.text_pooling == "mean"
    pixels = inputs.pop("pixel_values")
    expected = CLIPModel.from_pretrained(clip_folder).get_image_features(pixel_values=pixels).pooler_output
    torch.testing.assert_close(model.get_image_features(pixel_values=pixels).pooler_output, expected)
    bart = BartForConditionalGeneration.from_pretrained(bart_folder)
    assert torch.equal(first_output(model, inputs), first_output(bart, inputs))
    assert not any(parameter.requires_grad for parameter in model.model.vision_tower.parameters())
    w_e = model.model.text_projection.weight
    assert w_e.shape == (DIM, WIDTH)
    torch.testing.assert_close(w_e @ w_e.T, torch.eye(DIM), atol=1e-5, rtol=0)
    for back in (model.model.text_to_decoder.weight, model.model.image_to_decoder.weight):
        torch.testing.assert_close(back, torch.linalg.pinv(w_e), atol=1e-5, rtol=0)
    assert model.lm_head.weight is model.model.language_model.shared.weight
    defaults = model.generation_config
    assert (defaults.forced_bos_token_id, defaults.decoder_start_token_id, defaults.num_beams) == (0, 2, 4)
    assert (defaults.no_repeat_ngram_size, defaults.min_length) in ((None, None), (0, 0))


@pytest.mark.parametrize("kind", ["siglip", "resnet", "vit"])
def test_other_vision_checkpoints_are_assembled(kind: str, bart_folder: Path, pixel_values, tmp_path):
    source = save_vision_source(kind, tmp_path).eval()
    model = VLKDModel.from_vision_text_pretrained(tmp_path, bart_folder)
    with torch.no_grad():
        if kind == "siglip":
            expected = source.get_image_features(pixel_values=pixel_values).pooler_output
        else:
            expected = source(pixel_values=pixel_values).image_embeds
        torch.testing.assert_close(model.get_image_features(pixel_values=pixel_values).pooler_output, expected)


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_assembled_model_has_one_dtype_and_is_saved(
    clip_folder: Path, bart_folder: Path, inputs, tmp_path, model_class, dtype: torch.dtype
):
    model = model_class.from_vision_text_pretrained(clip_folder, bart_folder, dtype=dtype)
    assert {tensor.dtype for tensor in model.parameters()} == {dtype}
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    model.save_pretrained(tmp_path)
    loaded, info = model_class.from_pretrained(tmp_path, dtype=dtype, output_loading_info=True)
    assert not any(info.values())
    half = {**inputs, "pixel_values": inputs["pixel_values"].to(dtype)}
    assert torch.equal(first_output(loaded, half), first_output(model, half))


def test_wrong_sources_are_refused(clip_folder: Path, bart_folder: Path, tiny_checkpoint: Path, tmp_path):
    assemble = VLKDForConditionalGeneration.from_vision_text_pretrained
    with pytest.raises(ValueError, match="towers of type 'bart' are not supported; choose one of clip_"):
        assemble(bart_folder, bart_folder)
    with pytest.raises(ValueError, match="holds a model of type 'clip'; give a BART"):
        assemble(clip_folder, clip_folder)
    (tmp_path / "mbart").mkdir()
    (tmp_path / "mbart" / "config.json").write_text('{"model_type": "mbart"}')
    with pytest.raises(ValueError, match="mbart holds an mBART that expects the language behind the text"):
        assemble(clip_folder, tmp_path / "mbart")
    with pytest.raises(OSError, match="nowhere"):
        assemble(clip_folder, tmp_path / "nowhere")
    tensors = load_file(clip_folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((clip_folder / "config.json").read_text())
    with pytest.raises(ValueError, match=r"lacks 1 of the model's tensors, such as visual_projection\.weight"):
        assemble(tmp_path, bart_folder)
