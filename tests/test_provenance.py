"""What a card may tell about the origin of a model, and what it must not tell."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from modeling_vlkd import VLKDForConditionalGeneration
from modeling_vlkd.publishing.provenance import (
    Provenance,
    Source,
    hide_folders,
    public_name,
    public_words,
    read_metadata,
)


def write_card(folder: Path, metadata: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"---\n{metadata}\n---\n\n# A card\n")
    return folder


@pytest.mark.parametrize(
    ("name", "shown", "on_hub"),
    [
        ("openai/clip-vit-base-patch16", "openai/clip-vit-base-patch16", True),
        ("gpt2", "gpt2", True),
        ("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", True),
        ("ViT-B-16:laion2b_s34b_b88k", "ViT-B-16:laion2b_s34b_b88k", False),
        ("ViT-B-16:/home/me/epoch_32.pt", "ViT-B-16:epoch_32.pt", False),
        ("local-dir:/home/me/my-clip", "my-clip", False),
        ("../me/10:30/my-clip", "my-clip", False),
        ("/home/me/my-clip", "my-clip", False),
        ("/home/me/my-clip/", "my-clip", False),
        ("~/my clip|x", "my clip|x", False),
        ("{here}/my_clip", "my_clip", False),
        ("{here}/sub/..", "here", False),
    ],
)
def test_names_are_hub_ids_or_the_last_part_of_a_path(name, shown, on_hub, tmp_path):
    (tmp_path / "here" / "sub").mkdir(parents=True)
    (tmp_path / "here" / "my_clip").mkdir()
    assert public_name(name.format(here=tmp_path / "here")) == (shown, on_hub)


def test_a_folder_is_no_hub_id_though_it_looks_like_one(tmp_path, monkeypatch):
    (tmp_path / "openai" / "clip").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert public_name("openai/clip") == ("clip", False)


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("--dataset=/home/me/pictures", "--dataset=pictures"),
        ("/home/me/my pictures/a.png", "a.png"),
        ("/home/me/pictures/", "pictures/"),
        ("~/pictures", "pictures"),
        ("~me/pictures", "pictures"),
        ('{"path": "/home/me/x", "n": 1}', '{"path": "x", "n": 1}'),
        ('{"path": "../me/x"}', '{"path": "x"}'),
        ("../me/secret project/pictures", "pictures"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("0.5", "0.5"),
    ],
)
def test_folders_are_hidden(word, shown):
    assert hide_folders(word) == shown


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (
            "--hub_token hf_a --push_to_hub_token=hf_b --vision /x/y --hub_model_id a/b",
            "--vision y --hub_model_id a/b",
        ),
        ("--hub-token hf_a --hub-token=hf_b --flip", "--flip"),  # transformers' parser takes this spelling too
        ("--run_name bobs --project secret --logging_dir=../logs --seed 1", "--seed 1"),
        ("--flip --resume_from_checkpoint true --seed 1", "--flip --seed 1"),
        ("--resume-from-checkpoint=../me/out/checkpoint-2", ""),
        ("--dataset ../me/secret/pics --output_dir=../me/out/", "--dataset pics --output_dir=out"),
        ("--output_dir runs/first --vision openai/clip", "--output_dir first --vision openai/clip"),
        ("--vision ViT-B-16:../me/e.pt --dataset ./pics/b's", "--vision ViT-B-16:e.pt --dataset b's"),
        ("--replay ../o'me/x,y/t.txt", "--replay t.txt"),
        ("--vision hf-hub:laion/CLIP --text here/bart", "--vision hf-hub:laion/CLIP --text bart"),
        ("--optim_args rank=8,states=../me/x --seed 1", "--optim_args rank=8,states=x --seed 1"),
        ("--caption_column text/en --eval_split a/b", "--caption_column text/en --eval_split a/b"),
        ('--accelerator_config {"path":"../me/x"}', '--accelerator_config {"path":"x"}'),
    ],
)
def test_a_command_is_told_without_what_is_private(words, shown, tmp_path, monkeypatch):
    (tmp_path / "here" / "bart").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert public_words(words.split()) == shown.split()


@pytest.mark.parametrize(
    ("metadata", "license"),
    [
        ("license: cc-by-4.0", "cc-by-4.0"),
        ("license: [mit, apache-2.0]", "mit, apache-2.0"),
        ("license: other\nlicense_name: house-rules", "house-rules"),
        ("license: other", "other"),
        ("license: unknown", None),
        ("language: en", None),
        ("license: [mit", None),  # not valid YAML
        ("- mit", None),  # a list
    ],
)
def test_a_license_is_what_the_card_in_the_folder_states(metadata, license, tmp_path):
    folder = write_card(tmp_path / "data", metadata)
    assert Source.find("image-caption pairs", folder, "dataset").license == license


def test_without_a_card_no_license_is_known(tmp_path):
    assert Source.find("vision tower", tmp_path).license is None
    assert Source.find("vision tower", "somebody/else").license is None


def test_the_card_of_a_hub_data_set_is_read_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert read_metadata("me/pictures", "dataset") == {}
    write_card(tmp_path / "datasets--me--pictures" / "snapshots" / "0123abc", "license: cc0-1.0\nlanguage: fr")
    source = Source.find("image-caption pairs", "me/pictures", "dataset")
    assert (source.name, source.on_hub, source.license) == ("me/pictures", True, "cc0-1.0")
    assert Source.find("vision tower", "me/pictures").license is None  # a model of that name is something else


def test_metadata_of_one_card_are_carried_into_the_next(tmp_path):
    first = Provenance([Source("vision tower", "a/b", on_hub=True, license="mit"), Source("replayed texts", "x.txt")])
    first.commands.append("vlkd distill")
    lines = f"license: mit\nlanguage: [en, de]\nvlkd: {first.as_metadata()}"
    again = Provenance.of_checkpoint(write_card(tmp_path / "first", lines))
    assert (again.sources, again.commands) == (first.sources, first.commands)
    assert (again.license, again.language, again.base_models) == ("mit", ["en", "de"], ["a/b"])


@pytest.mark.parametrize(
    ("metadata", "sources"),
    [
        ("base_model: a/b", [Source("base model", "a/b", on_hub=True)]),
        ("vlkd: nonsense\nbase_model: [a/b]", [Source("base model", "a/b", on_hub=True)]),
        (
            "vlkd: {made_from: [{role: x}, {role: 1, name: y}, {role: x, name: y, z: 1}]}",
            [Source("checkpoint", "out")],
        ),
        ("license: mit", [Source("checkpoint", "out")]),
    ],
)
def test_a_card_that_was_not_ours_or_was_edited_is_read_as_far_as_it_goes(metadata, sources, tmp_path):
    assert Provenance.of_checkpoint(write_card(tmp_path / "out", metadata)).sources == sources


def test_a_checkpoint_on_the_hub_is_the_base_model():
    assert Provenance.of_checkpoint("me/my-vlkd").base_models == ["me/my-vlkd"]


def test_a_model_in_memory_is_known_by_what_it_was_loaded_from(clip_folder, bart_folder, tiny_checkpoint):
    model = VLKDForConditionalGeneration.from_vision_text_pretrained(clip_folder, bart_folder)
    names = [(source.role, source.name) for source in Provenance.of_config(model.config).sources]
    assert names == [("vision tower", clip_folder.name), ("language model", bart_folder.name)]
    loaded = VLKDForConditionalGeneration.from_pretrained(tiny_checkpoint)
    assert Provenance.of_config(loaded.config).sources == [Source("checkpoint", tiny_checkpoint.name)]
    assert Provenance.of_config(type(model.config)()).sources == []


def test_a_configuration_is_saved_without_the_folders_of_its_towers(clip_folder, bart_folder, tmp_path):
    model = VLKDForConditionalGeneration.from_vision_text_pretrained(clip_folder, bart_folder)
    model.save_pretrained(tmp_path)
    content = (tmp_path / "config.json").read_text()
    assert clip_folder.name not in content
    assert "_name_or_path" not in content
