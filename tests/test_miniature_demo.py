"""The demo on a few pictures and steps, from the shipped teachers to the files that it leaves."""

import json

import pytest
import torch
from PIL import Image
from transformers import pipeline

from modeling_vlkd.commands.demo import main
from modeling_vlkd.miniature import demo, distilling
from modeling_vlkd.miniature.card import OWN_LICENSE, demo_card
from modeling_vlkd.miniature.clip_teacher import embed_images, zero_shot_accuracy
from modeling_vlkd.miniature.distilling import WEIGHTS, CaptionedPictures, Teachers, assemble
from modeling_vlkd.miniature.report import BASELINES, ROWS, markdown_table
from modeling_vlkd.miniature.scoring import score_reading
from modeling_vlkd.miniature.world import load_split, load_train_and_validation
from modeling_vlkd.publishing.provenance import Provenance
from modeling_vlkd.trainers import align_text_projection


FROM_RUNS = {"runs", "each_seed", "baselines"}


@pytest.fixture(scope="module")
def teachers():
    return Teachers.load(WEIGHTS)


@pytest.fixture
def short_demo(monkeypatch):
    test = load_split("test").part(list(range(12)))
    train, validation = load_train_and_validation()
    monkeypatch.setattr(demo, "load_split", lambda name: test)
    monkeypatch.setattr(demo, "load_train_and_validation", lambda: (train.part(list(range(100))), validation))
    monkeypatch.setattr(distilling, "STEPS", 2)
    monkeypatch.setattr(distilling, "REPLAY_LINES", 200)


def test_shipped_weights_are_small_and_tell_where_they_come_from():
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 6_000_000
    for name in ("clip", "bart"):
        record = json.loads((WEIGHTS / name / "provenance.json").read_text())
        assert record["command"] == "vlkd demo --from-scratch"
        assert {"seed", "seconds", "versions", "validation", "parameters"} <= set(record)
        assert all(score > 0.95 for score in record["validation"].values())
        assert record["data"] in (WEIGHTS / name / "README.md").read_text()
    stated = {source.license for source in Provenance.of_towers(WEIGHTS / "clip", WEIGHTS / "bart").sources}
    assert stated == {OWN_LICENSE}


def test_shipped_teachers_know_their_trade(teachers):
    _, validation = load_train_and_validation()
    assert zero_shot_accuracy(teachers.clip, teachers.clip_processor, validation.part(list(range(100)))) > 0.95
    assert score_reading(*assemble(teachers)) > 0.9


def test_assembled_model_has_clips_own_image_embeddings(teachers):
    model, processor = assemble(teachers)
    images = load_split("test").images[:4]
    pixels = processor(images=list(map(Image.fromarray, images)), return_tensors="pt").pixel_values
    with torch.no_grad():
        own = model.get_image_features(pixel_values=pixels).pooler_output
    torch.testing.assert_close(own, embed_images(teachers.clip, teachers.clip_processor, images), atol=1e-4, rtol=1e-4)


def test_pairs_bring_both_views_and_clips_text_embedding(teachers):
    train, _ = load_train_and_validation()
    pairs = CaptionedPictures(teachers, train.part(list(range(20))), pairs=50, seed=0)
    assert len(pairs) == 50
    assert sorted(picture for picture, _ in pairs.pairs[:20]) == list(range(20))  # each picture once before any twice
    assert pairs[0]["image_embeds"].shape == (2, 1, 96)
    assert pairs[0]["caption"] in train.scenes[pairs.pairs[0][0]].captions()


def test_pairs_for_a_trained_tower_bring_pixels_of_the_same_pictures(teachers):
    train, _ = load_train_and_validation()
    part = train.part(list(range(20)))
    rows, pixels = (CaptionedPictures(teachers, part, 30, seed=0, keep_pixels=keep) for keep in (False, True))
    assert rows.pairs == pixels.pairs
    examples = [pixels[place] for place in range(4)]
    assert all(example["flip"] and "image_embeds" not in example for example in examples)
    with torch.no_grad():
        batch = torch.stack([example["pixel_values"] for example in examples])
        embeds = teachers.clip.get_image_features(pixel_values=batch).pooler_output
    own = torch.stack([rows[place]["image_embeds"][0, 0] for place in range(4)])  # not mirrored
    torch.testing.assert_close(embeds, own, atol=1e-4, rtol=1e-4)


def test_fewer_pairs_are_the_first_of_more(teachers):
    train, _ = load_train_and_validation()
    part = train.part(list(range(20)))
    more, fewer = (CaptionedPictures(teachers, part, pairs, seed=3).pairs for pairs in (60, 7))
    assert [picture for picture, _ in more[:7]] == [picture for picture, _ in fewer]
    assert len({picture for picture, _ in fewer}) == 7


@pytest.mark.parametrize(("share", "pairs"), [(1.0, 192), (0.5, 96), (0.001, 64)])  # never less than a batch
def test_a_share_of_the_pairs_is_repeated_for_as_many_steps(teachers, tmp_path, monkeypatch, share, pairs):
    class Watched(distilling.VLKDDistillationTrainer):
        def save_model(self):
            assert len(self.train_dataset) == pairs
            assert self.state.global_step == 3

    monkeypatch.setattr(distilling, "VLKDDistillationTrainer", Watched)
    train = load_train_and_validation()[0].part(list(range(20)))
    distilling.distill(teachers, train, tmp_path, replay=False, seed=0, pair_share=share, steps=3)


def test_replay_with_a_trained_tower_is_refused(short_demo, teachers, tmp_path):
    train, _ = demo.load_train_and_validation()
    with pytest.raises(ValueError, match="Replay needs a frozen vision tower"):
        distilling.distill(teachers, train, tmp_path, replay=True, seed=0, freeze_vision_tower=False)


def test_demo_leaves_scores_report_picture_and_a_checkpoint(short_demo, tmp_path, capsys):
    output, scores = tmp_path / "out", tmp_path / "scores.json"
    assert main(["--output", str(output), "--json", str(scores)]) == 0
    result = json.loads(scores.read_text())
    assert set(result) == {*FROM_RUNS, "checkpoint", "recipe", "parameters", "seeds", "versions", "seconds"}
    for run in result["runs"].values():
        assert {*ROWS, "seconds"} <= set(run)
    assert set(result["baselines"]) == set(BASELINES)
    assert result["checkpoint"] == str(output)
    assert result["each_seed"]["replay"][0]["overall"] == result["runs"]["replay"]["overall"]  # of a single seed
    assert "18 templates" in capsys.readouterr().out
    page = (output / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("http-equiv", "")
    table = markdown_table(result).splitlines()
    assert len(table) == 2 + len(ROWS) + len(BASELINES)
    assert f"{result['runs']['replay']['overall']:.3f}" in table[2]
    assert (output / "pictures" / "0.png").is_file()
    assert (output / "demo.png").stat().st_size > 1000
    assert (output / "README.md").read_text() == str(demo_card(result))
    assert str(tmp_path) not in (output / "README.md").read_text()

    ask = pipeline("visual-question-answering", model=str(output))
    [answer] = ask(image=Image.fromarray(load_split("test").images[0]), question="what shape is in the image?")
    assert set(answer) == {"answer", "score"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds 0"),
        (["--json", "nowhere/scores.json"], "there is no folder"),
        (["--sedes", "3"], "--seeds"),
    ],
)
def test_mistakes_get_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_output_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path / "file")])
    assert "name a folder" in capsys.readouterr().err


def test_aligned_projection_is_orthogonal_and_nearer_to_clips_texts(teachers):
    model, processor = assemble(teachers)
    train, _ = load_train_and_validation()
    pairs = CaptionedPictures(teachers, train.part(list(range(50))), pairs=200, seed=0)
    inputs = processor.tokenizer(list(pairs.text_embeds), padding=True, return_tensors="pt")
    targets = torch.stack(list(pairs.text_embeds.values()))

    def similarity() -> float:
        with torch.no_grad():
            sentences = model.get_text_features(**inputs).pooler_output
        return torch.cosine_similarity(sentences, targets).mean().item()

    before = similarity()
    align_text_projection(model, processor, list(pairs.text_embeds), torch.stack(list(pairs.text_embeds.values())))
    weight = model.model.text_projection.weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), atol=1e-4, rtol=0)
    torch.testing.assert_close(model.model.text_to_decoder.weight, weight.T)
    assert similarity() > before + 0.3
