"""Captioned pictures of COCO's and Karpathy's files, and their evaluation."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from pycocoevalcap.cider.cider import Cider
from tiny_training import tiny_model, tiny_processor

from modeling_vlkd.commands.finetune_captioning import make_examples
from modeling_vlkd.trainers import VLKDDataCollator
from modeling_vlkd.trainers.captioning_examples import CaptionEvaluation, PictureExamples, load_referenced_images


@pytest.fixture
def karpathy(tmp_path: Path) -> Path:
    images = []
    for number, split in enumerate(["train", "restval", "val", "train"]):
        name = f"COCO_val2014_{number:012d}.png"
        (tmp_path / "val2014").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), ["red", "blue", "green", "teal"][number]).save(tmp_path / "val2014" / name)
        sentences = [{"raw": f"a  picture {number}"}, {"raw": " "}, {"raw": "a box"}]
        images.append(
            {"split": split, "filename": name, "cocoid": number, "filepath": "val2014", "sentences": sentences}
        )
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images}))
    return tmp_path


def test_splits_are_joined_and_captions_cleaned(karpathy: Path):
    found = load_referenced_images(karpathy / "dataset_coco.json", karpathy, "train+restval")
    assert [Path(path).name[-5] for path in found["image"]] == ["0", "3", "1"]
    assert found["captions"][0] == ["a picture 0", "a box"]
    with pytest.raises(ValueError, match="has no split 'tset'"):
        load_referenced_images(karpathy / "dataset_coco.json", karpathy, "tset")


@pytest.mark.parametrize("frozen", [True, False])
def test_an_example_is_a_caption_or_a_picture(karpathy: Path, frozen: bool):
    processor = tiny_processor()
    model = tiny_model(processor).eval()
    model.config.freeze_vision_tower = frozen
    data = load_referenced_images(karpathy / "dataset_coco.json", karpathy, "train")
    captions, pictures = (make_examples(data, model, processor, str(karpathy), each) for each in (True, False))
    assert (len(captions), len(pictures)) == (4, 2)
    assert pictures[1]["position"] == 1
    batch = VLKDDataCollator(processor, model)([captions[0], captions[3]])
    texts = processor.batch_decode(batch["labels"].clamp(min=0), skip_special_tokens=True)
    assert texts == ["A picture of a picture 0.", "A picture of a box."]
    assert batch["input_ids"].tolist() == processor.tokenizer(processor.caption_prompts(2))["input_ids"]
    pixels = processor(images=list(data["image"]), return_tensors="pt").pixel_values
    if frozen:
        torch.testing.assert_close(batch["image_embeds"], model.get_image_rows(pixels).detach())
    else:
        assert torch.equal(batch["pixel_values"], pixels)


def test_captions_are_scored_against_all_references_of_their_picture(karpathy: Path):
    processor = tiny_processor()
    model = tiny_model(processor)
    model.generation_config.max_new_tokens = 3
    data = load_referenced_images(karpathy / "dataset_coco.json", karpathy, "train+restval")
    examples = make_examples(data, model, processor, str(karpathy), True)
    evaluation = CaptionEvaluation(examples, processor)
    assert len(evaluation) == 3
    said = evaluation.predict(model, [0, 1, 2], 2)
    assert evaluation.predict(model, [2], 2) == said[2:]
    opened = CaptionEvaluation(PictureExamples(data, None, 0), processor)
    assert opened.predict(model, [0, 1, 2], 2) == said
    scores = evaluation.score(["a box", "a red picture 3", ""])
    references = dict(enumerate(data["captions"]))
    expected, _ = Cider().compute_score(references, {0: ["a box"], 1: ["a red picture 3"], 2: [""]})
    assert scores["CIDEr"] == pytest.approx(expected)
    assert set(scores) == {"CIDEr", "Bleu_4", "ROUGE_L"}
