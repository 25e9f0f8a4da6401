import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import CAPTIONS, DIM, tiny_model, tiny_processor

from modeling_vlkd.evaluation.decoding import DecodingTrial, choose_decoding
from modeling_vlkd.trainers import VLKDDistillationConfig, VLKDDistillationTrainer


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


def test_a_trial_tells_what_was_chosen_and_why():
    told = str(DecodingTrial(0.25, 0.5, 8))
    assert told == "by itself (word F1 0.250 after it, 0.500 by itself, on 8 pictures)"
    assert str(DecodingTrial(0.5, 0.5, 8)).startswith("after the known beginning")


def test_pictures_are_looked_at_for_the_choice(processor):
    generator = np.random.default_rng(0)
    pictures = [Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)) for _ in range(4)]
    model, references = tiny_model(processor), [[caption] for caption in CAPTIONS[:4]]
    trial = choose_decoding(model, processor, iter(pictures), references, batch_size=3)
    rows = model.get_image_rows(processor(images=pictures, return_tensors="pt")["pixel_values"])
    assert trial == choose_decoding(model, processor, rows, references)
    assert trial.pictures == 4
