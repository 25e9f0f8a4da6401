import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from tiny_sources import (
    save_bart,
    save_fairseq_bart,
    save_open_clip_folder,
    save_openai_archive,
    save_transformers_clip,
)
from transformers import AutoModelForImageTextToText, AutoProcessor

from modeling_vlkd import VLKDConfig, VLKDForConditionalGeneration
from modeling_vlkd.conversion import assembling
from modeling_vlkd.conversion.assembling import convert, staged
from modeling_vlkd.conversion.errors import ConversionError
from modeling_vlkd.publishing.shareable import find_shareable
from modeling_vlkd.trainers.feature_cache import TextTeacher


SOURCES = {
    "openai-vit.pt": lambda path: save_openai_archive("vit", path),
    "openai-resnet.pt": lambda path: save_openai_archive("resnet", path),
    "open-clip": lambda path: save_open_clip_folder("vit", path, mean=[0.5] * 3, std=[0.5] * 3),
    "clip": lambda path: save_transformers_clip("clip", path),
    "siglip": lambda path: save_transformers_clip("siglip", path),
    "chinese_clip": lambda path: save_transformers_clip("chinese_clip", path),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Make a folder with one source of each kind."""
    folder = tmp_path_factory.mktemp("sources")
    for name, save in SOURCES.items():
        save(folder / name)
    save_bart(folder / "bart")
    save_fairseq_bart(folder / "fairseq")
    return folder


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_becomes_a_proven_checkpoint(name, sources, tmp_path):
    bart = "fairseq" if name.startswith("openai") else "bart"
    report = convert(str(sources / name), str(sources / bart), tmp_path / "out")
    checks = {check.subject: check for check in report.checks}
    assert all(check.passed for check in report.checks)
    assert checks["BART's logits"].difference == 0
    assert {"image embeddings, relative", "pixels after preprocessing"} < set(checks)
    assert ("text embeddings, relative" in checks) == (name != "chinese_clip")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # no temporary folder is left

    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert type(model) is VLKDForConditionalGeneration
    parts = {part.name: part for part in report.parts}
    tower = model.model.vision_tower
    assert parts["vision tower"].parameters == sum(tensor.numel() for tensor in tower.parameters())
    size = tower.config.image_size
    text = processor(text=processor.question_prompts(["the tree?"]), return_tensors="pt")
    tokens = model.generate(**text, pixel_values=torch.zeros(1, 3, size, size), max_new_tokens=4, do_sample=False)
    assert len(tokens) == 1


def test_without_a_tokenizer_the_vision_tower_is_converted_all_the_same(sources, tmp_path):
    shutil.copytree(sources / "clip", tmp_path / "clip")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "clip" / name).unlink()
    report = convert(str(tmp_path / "clip"), str(sources / "bart"), tmp_path / "out")
    assert "text embeddings, relative" in {check.subject for check in report.checks}
    assert "sentences tokenized otherwise" not in {check.subject for check in report.checks}


def read_all(folder):
    """Read the bytes of all files of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_seed_gives_the_same_bytes_and_another_one_other_matrices(sources, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        torch.manual_seed(hash(name))  # the caller's random state does not matter, and stays as it was
        state = torch.get_rng_state()
        convert(str(sources / "clip"), str(sources / "bart"), tmp_path / name, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
    assert read_all(tmp_path / "a") == read_all(tmp_path / "b")
    weights = {name: load_file(tmp_path / name / "model.safetensors") for name in "ac"}
    changed = {key for key, tensor in weights["a"].items() if not torch.equal(tensor, weights["c"][key])}
    assert changed == {f"model.{name}.weight" for name in ("text_projection", "text_to_decoder", "image_to_decoder")}


def test_no_file_tells_the_folder_of_the_sources(sources, tmp_path):
    convert(str(sources / "openai-resnet.pt"), str(sources / "fairseq"), tmp_path / "out")
    for name, content in read_all(tmp_path / "out").items():
        if name.endswith((".json", ".md")):
            assert str(tmp_path.parent).encode() not in content, name
        if name.endswith(".json"):
            json.loads(content)


def test_the_card_tells_what_was_put_together_and_that_it_is_not_trained(sources, tmp_path):
    shutil.copytree(sources / "clip", tmp_path / "clip")
    (tmp_path / "clip" / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    convert(str(tmp_path / "clip"), str(sources / "bart"), tmp_path / "out", seed=3, license="mit")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.license, card.data.base_model) == ("mit", None)
    assert "**not trained yet**" in card.text
    assert "| vision tower | `clip`, transformers clip | `cc-by-4.0` |" in card.text
    assert "vlkd convert --vision clip --text bart --output DIR --seed 3" in card.text
    assert "| image embeddings, relative | transformers | 1e-05 |" in card.text
    model = VLKDForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert f"It has {model.num_parameters():,} parameters" in card.text


def test_a_resnet_says_how_many_rows_it_gives(sources, tmp_path):
    convert(str(sources / "openai-resnet.pt"), str(sources / "bart"), tmp_path / "out", max_shard_size="200KB")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    config = VLKDConfig.from_pretrained(tmp_path / "out").vision_config
    assert f"gives {config.num_rows} rows for a picture" in card.text
    assert "`openai-resnet.pt`, OpenAI checkpoint, so QuickGELU" in card.text
    assert "--max-shard-size 200KB" in card.text


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def code_references(content) -> set[str]:
    """Find the `module.Class` of every auto map and custom pipeline, at any depth."""
    if not isinstance(content, dict):
        return set()
    found = set().union(*map(code_references, content.values()), [])
    maps = [value for key, value in content.items() if key in ("auto_map", "impl")]
    return found | set(re.findall(r"\w+\.\w+", json.dumps(maps)))


def test_code_of_the_sources_is_left_out_and_vlkds_own_stays(sources, tmp_path):
    """With the names of such code, nobody could load the checkpoint, and `vlkd push` would look for its files."""
    for name, tower in (("clip", "clip/config.json"), ("bart", "bart/config.json")):
        shutil.copytree(sources / name, tmp_path / name)
        pipelines = {"mine": {"impl": "theirs.Pipe", "pt": ["AutoModel"], "type": "text"}}
        edit_json(tmp_path / tower, auto_map={"AutoConfig": "theirs.Config"}, custom_pipelines=pipelines)
        edit_json(tmp_path / name / "tokenizer_config.json", auto_map={"AutoTokenizer": ["theirs.Tokenizer", None]})
    towers = json.loads((tmp_path / "clip/config.json").read_text())
    for tower in ("vision_config", "text_config"):
        towers[tower]["auto_map"] = {"AutoConfig": "theirs.Tower"}
    edit_json(tmp_path / "clip/config.json", **towers)
    edit_json(tmp_path / "clip/preprocessor_config.json", auto_map={"AutoImageProcessor": "theirs.Pictures"})
    convert(
        str(tmp_path / "clip"), str(tmp_path / "bart"), tmp_path / "out", tmp_path / "teacher", license="apache-2.0"
    )
    convert(str(sources / "clip"), str(sources / "bart"), tmp_path / "plain", license="apache-2.0")
    for path in [*(tmp_path / "out").glob("*.json"), *(tmp_path / "teacher").glob("*.json")]:
        assert "theirs" not in path.read_text(), path
    for name in ("config.json", "processor_config.json"):
        found = code_references(json.loads((tmp_path / "out" / name).read_text()))
        assert found == code_references(json.loads((tmp_path / "plain" / name).read_text())) != set()
    assert find_shareable(tmp_path / "out").files == find_shareable(tmp_path / "plain").files


def test_weights_are_sharded(sources, tmp_path):
    convert(str(sources / "clip"), str(sources / "bart"), tmp_path / "out", max_shard_size="200KB")
    shards = list((tmp_path / "out").glob("model-*.safetensors"))
    assert len(shards) > 1
    assert (tmp_path / "out/model.safetensors.index.json").is_file()


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_the_teacher_embeds_texts_as_the_whole_clip(name, sources, tmp_path):
    convert(str(sources / name), str(sources / "bart"), tmp_path / "out", tmp_path / "teacher")
    texts = ["a b c", "what?"]
    embeds = TextTeacher(tmp_path / "teacher").embed(texts)
    torch.testing.assert_close(embeds, TextTeacher(sources / name).embed(texts))
    assert not torch.allclose(embeds[0], embeds[1], atol=0.1)


def test_a_teacher_without_a_tokenizer_is_refused(sources, tmp_path):
    with pytest.raises(ConversionError, match="no tokenizer is known for 60 tokens"):  # no published one has so few
        convert(str(sources / "openai-resnet.pt"), str(sources / "bart"), tmp_path / "out", tmp_path / "teacher")
    assert not list(tmp_path.iterdir())


def test_a_conversion_that_is_not_exact_leaves_nothing(sources, tmp_path, monkeypatch):
    def spoil(vision, text, output, *arguments):
        assemble(vision, text, output, *arguments)
        tensors = load_file(output / "model.safetensors")
        tensors["model.vision_tower.visual_projection.weight"] *= 1.001
        save_file(tensors, output / "model.safetensors", {"format": "pt"})

    assemble = assembling.assemble
    monkeypatch.setattr(assembling, "assemble", spoil)
    with pytest.raises(
        ConversionError, match=r"not exact: image embeddings, relative differ from transformers by 0\.001"
    ):
        convert(str(sources / "clip"), str(sources / "bart"), tmp_path / "out", tmp_path / "teacher")
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    with staged(tmp_path / "out") as content:
        (content / "file").write_text("x")
        assert not list((tmp_path / "out").iterdir())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


def test_interruption_leaves_nothing(tmp_path):
    def write_half():
        with staged(tmp_path / "out") as content:
            (content / "half").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark counts memory as Linux does")
@pytest.mark.parametrize("form", ["openai", "open_clip", "transformers"])
def test_memory_stays_below_the_limit(form):
    script = Path(__file__).parent.parent / "benchmarks" / "conversion_memory.py"
    subprocess.run([sys.executable, str(script), "--vision", "ViT-B-16", "--form", form], check=True)
