import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import CAPTIONS, DIM, tiny_model, tiny_processor

from modeling_vlkd.evaluation.decoding import DecodingTrial, choose_decoding, choose_decoding_on, hold_back
from modeling_vlkd.trainers import VLKDDistillationConfig, VLKDDistillationTrainer, decoding


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


def taught(processor, tmp_path, share: float):
    """A model that knows four pictures by heart, and their captions, none of which begins as the prompt does."""
    rows = torch.eye(DIM)[:4, None]
    captions = [caption.removeprefix("A picture of ").removesuffix(".") for caption in CAPTIONS[:4]]
    model = tiny_model(processor)
    settings = {"max_steps": 150, "per_device_train_batch_size": 4, "learning_rate": 5e-3, "save_strategy": "no"}
    settings |= {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "ttdm_weight": 0.0}
    args = VLKDDistillationConfig(str(tmp_path), whole_text_share=share, mask_ratio=0.5, **settings)
    pairs = [{"image_embeds": row, "caption": caption} for row, caption in zip(rows, captions)]
    VLKDDistillationTrainer(model, args, train_dataset=pairs, processing_class=processor).train()
    return model, rows, [[caption] for caption in captions]


def test_captions_follow_the_prompt_whatever_they_begin_with(processor, tmp_path):
    """Written as fillings of the prompt in training, captions are right both ways, and the shorter way is taken."""
    model, rows, references = taught(processor, tmp_path, share=0.5)
    trial = choose_decoding(model, processor, rows, references)
    assert trial == DecodingTrial(1.0, 1.0, 4)
    assert model.generation_config.force_prefix is True


def test_the_better_way_is_stored(processor, tmp_path):
    """A model that never saw its prompt in training does not know how to go on after it."""
    model, rows, references = taught(processor, tmp_path, share=0.0)
    model.train()
    trial = choose_decoding(model, processor, rows, references)
    assert model.training
    assert trial.forced != trial.free
    assert model.generation_config.force_prefix is trial.force_prefix is (trial.forced > trial.free)
    model.save_pretrained(tmp_path / "saved")
    assert type(model).from_pretrained(tmp_path / "saved").generation_config.force_prefix is trial.force_prefix


def test_pictures_are_held_back_by_the_seed():
    pictures = datasets.Dataset.from_dict({"image": [str(number) for number in range(100)]})
    kept, held = hold_back(pictures, None, seed=0)
    assert len(held) == 5
    assert sorted([*kept["image"], *held["image"]]) == sorted(pictures["image"])
    again, other = (list(hold_back(pictures, None, seed=seed)[1]["image"]) for seed in (0, 1))
    assert list(held["image"]) == again != other
    assert len(hold_back(pictures, 30, seed=0)[1]) == 30
    for few, count in ((pictures, 0), (pictures.select(range(19)), None)):
        assert hold_back(few, count, seed=0) == (few, None)
    for count in (-1, 100):
        with pytest.raises(ValueError, match=f"hold_back={count}: give 0 to 99, for there are 100 pictures"):
            hold_back(pictures, count, seed=0)


def test_captioned_pictures_are_looked_at_for_the_choice(processor, tmp_path, monkeypatch):
    """As far as they have to: what the trial gets are the rows and captions of the first pictures."""
    generator = np.random.default_rng(0)
    pictures = [Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)) for _ in range(5)]
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    paths = [str(tmp_path / f"{number}.png") for number in range(5)]
    dataset = datasets.Dataset.from_dict({"image": paths, "captions": [[caption] for caption in CAPTIONS[:5]]})
    monkeypatch.setattr(decoding, "MOST_PICTURES", 4)
    model = tiny_model(processor)
    trial = choose_decoding_on(dataset, model, processor, batch_size=3)
    rows = model.get_image_rows(processor(images=pictures[:4], return_tensors="pt")["pixel_values"])
    assert trial == choose_decoding(model, processor, rows, [[caption] for caption in CAPTIONS[:4]])
    assert trial.pictures == 4


def test_a_trial_tells_what_was_chosen_and_why():
    told = str(DecodingTrial(0.25, 0.5, 8))
    assert told == "by itself (word F1 0.250 after it, 0.500 by itself, on 8 pictures)"
    assert str(DecodingTrial(0.5, 0.5, 8)).startswith("after the known beginning")
