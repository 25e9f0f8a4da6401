import json
import math
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import torch
from tiny_training import CAPTIONS, DIM, tiny_model, tiny_pairs, tiny_processor
from transformers import TrainerCallback

from modeling_vlkd import VLKDConfig, VLKDForConditionalGeneration, VLKDProcessor
from modeling_vlkd.evaluation.metrics import image_text_recall
from modeling_vlkd.generation_vlkd import generate_answers
from modeling_vlkd.trainers import (
    QuestionSet,
    ReplayCorpus,
    ReplayText,
    VLKDDistillationCollator,
    VLKDDistillationConfig,
    VLKDDistillationTrainer,
)


OF_TRAINER = ("eval_dataset", "replay", "question_set", "data_collator")
PROJECTIONS = ("text_projection", "text_to_decoder", "image_to_decoder", "logit_scale")


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture
def trainer_of(processor, tmp_path):
    """Makes a trainer on twelve pairs; keyword arguments are those of the config, or of the trainer."""

    def make(model=None, train_dataset=None, folder="run", **kwargs):
        of_trainer = {name: kwargs.pop(name) for name in OF_TRAINER if name in kwargs}
        settings = {"max_steps": 3, "per_device_train_batch_size": 4, "logging_steps": 1, "learning_rate": 1e-3}
        settings |= {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True} | kwargs
        return VLKDDistillationTrainer(
            model or tiny_model(processor),
            VLKDDistillationConfig(str(tmp_path / folder), **settings),
            train_dataset=tiny_pairs() if train_dataset is None else train_dataset,
            processing_class=processor,
            **of_trainer,
        )

    return make


@pytest.fixture(scope="module")
def replay(processor):
    tokenizer = processor.tokenizer
    target = tokenizer("is there a circle? Answer: yes.").input_ids
    source = tokenizer("is there a circle? Answer:<mask>.").input_ids
    return ReplayCorpus([ReplayText(target, source, torch.ones(DIM)), ReplayText(target)])


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal_weights(first, second):
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different, different


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def aligned_pairs(count=8):
    """Pairs whose teacher embedding is the image's, so that all three losses can fall together."""
    return [{**pair, "text_teacher_embeds": pair["image_embeds"][0]} for pair in tiny_pairs(count)]


def test_one_batch_is_learned_by_heart(trainer_of):
    trainer = trainer_of(
        train_dataset=aligned_pairs(),
        eval_dataset=aligned_pairs(),
        max_steps=150,
        per_device_train_batch_size=8,
        learning_rate=5e-3,
        projection_learning_rate=1e-2,
        whole_text_share=1.0,
        logging_steps=50,
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_icti"] > 3
    assert after["eval_icti"] < 0.3
    assert before["eval_ttdm"] > 0.05
    assert after["eval_ttdm"] < 0.002
    assert after["eval_itcl"] < 0.1 < before["eval_itcl"]
    assert after["eval_retrieval_i2t"] == after["eval_retrieval_t2i"] == 1.0


def test_clip_stays_bit_for_bit_and_all_else_changes(trainer_of, processor, replay):
    model = tiny_model(processor)
    before = weights(model)
    trainer_of(model, replay=replay, init_image_to_decoder=False).train()
    after = model.state_dict()
    for name, parameter in model.named_parameters():
        frozen = "vision_tower" in name
        assert parameter.requires_grad != frozen
        assert torch.equal(after[name], before[name]) == frozen, name


def test_batch_norm_statistics_of_a_resnet_stay(trainer_of, processor):
    vision = {"model_type": "clip_resnet_vision_model", "layers": [1, 1, 1, 1], "width": 8, "image_size": 32}
    config = tiny_model(processor).config
    model = VLKDForConditionalGeneration(
        VLKDConfig(
            vision_config=vision | {"projection_dim": DIM, "num_attention_heads": 2}, text_config=config.text_config
        )
    )
    before = weights(model.model.vision_tower)
    generator = torch.Generator().manual_seed(0)
    pairs = [
        {"pixel_values": torch.randn(3, 32, 32, generator=generator) + 3, "caption": caption}
        for caption in CAPTIONS[:4]
    ]
    trainer_of(model, pairs, ttdm_weight=0.0).train()
    assert any("running_mean" in name for name in before)
    assert_equal_weights(before, model.model.vision_tower.state_dict())


def test_each_term_is_logged_and_the_loss_is_their_weighted_sum(trainer_of, replay):
    trainer = trainer_of(replay=replay, ttdm_weight=10.0, itcl_weight=2.0, icti_weight=3.0, replay_weight=0.5)
    trainer.train()
    for entry in trainer.state.log_history[:3]:
        expected = 10 * entry["ttdm"] + 2 * entry["itcl"] + 3 * entry["icti"] + 0.5 * entry["replay"]
        assert entry["loss"] == pytest.approx(expected, rel=1e-5)
        assert entry["logit_scale"] > 0


def test_logged_terms_are_means_over_steps(trainer_of, processor):
    runs = []
    for steps in (1, 3):
        trainer = trainer_of(tiny_model(processor), logging_steps=steps)
        trainer.train()
        runs.append({name: logged(trainer, name) for name in ("loss", "ttdm", "itcl", "icti")})
    for name in runs[0]:
        assert sum(runs[0][name]) / 3 == pytest.approx(runs[1][name][0], rel=1e-5)


def test_eight_steps_of_one_accumulated_are_one_step_of_eight(trainer_of, processor, replay):
    runs = []
    for size, accumulate in ((8, 1), (1, 8)):
        trainer = trainer_of(
            tiny_model(processor),
            tiny_pairs(24),
            replay=replay,
            itcl_weight=0.0,  # its negatives are the pairs of one micro-batch
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulate,
            optim="sgd",
            learning_rate=1e-3,
            init_image_to_decoder=False,
        )
        trainer.train()
        runs.append(
            (weights(trainer.model), {name: logged(trainer, name) for name in ("loss", "ttdm", "icti", "replay")})
        )
    for name in runs[0][0]:
        torch.testing.assert_close(runs[0][0][name], runs[1][0][name], rtol=1e-4, atol=1e-6)
    for name in runs[0][1]:
        assert runs[0][1][name] == pytest.approx(runs[1][1][name], rel=1e-4)


def test_two_equal_steps_accumulated_are_one_of_them(trainer_of, processor):
    """Contrast too is a mean over the steps of an update, though it gains no negatives."""
    runs = []
    for accumulate in (1, 2):
        trainer = trainer_of(
            tiny_model(processor),
            tiny_pairs(4) * accumulate,
            gradient_accumulation_steps=accumulate,
            icti_weight=0.0,  # its masks differ
            train_sampling_strategy="sequential",
            optim="sgd",
            learning_rate=1e-3,
            max_steps=1,
            warmup_steps=0,
            max_grad_norm=0.0,
        )
        trainer.train()
        runs.append((weights(trainer.model), trainer.state.log_history[0]))
    before = weights(tiny_model(processor))["model.text_projection.weight"]
    assert not torch.allclose(runs[0][0]["model.text_projection.weight"], before, atol=1e-4)
    for name in runs[0][0]:
        torch.testing.assert_close(runs[0][0][name], runs[1][0][name], rtol=1e-4, atol=1e-6)
    for name in ("loss", "ttdm", "itcl"):
        assert runs[0][1][name] == pytest.approx(runs[1][1][name], rel=1e-5), name


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(trainer_of, processor, replay, tmp_path):
    settings = {"eval_strategy": "steps", "eval_steps": 1, "eval_dataset": tiny_pairs(4), "whole_text_share": 0.3}
    assert_resumes(trainer_of, processor, **settings, replay=replay)


class PairStream(torch.utils.data.IterableDataset):
    """Pairs one after the other, in another order in each epoch; a length is no sign of places."""

    def __init__(self, pairs):
        self.pairs, self.epoch = pairs, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        if worker is None or worker.id == 0:
            yield from self.pairs[self.epoch :] + self.pairs[: self.epoch]


class PairStreamWithLength(PairStream):
    def __len__(self):
        return len(self.pairs)


@pytest.mark.parametrize("stream", [PairStream, PairStreamWithLength])
def test_a_resumed_run_on_a_stream_is_the_uninterrupted_one_bit_for_bit(trainer_of, processor, stream):
    assert_resumes(trainer_of, processor, train_dataset=stream(tiny_pairs()))


def assert_resumes(trainer_of, processor, **settings):
    """Stop in the middle of the second epoch of three steps, go on, and compare with a run that was never stopped."""
    settings |= {"max_steps": 8, "save_strategy": "steps", "save_steps": 2}

    class StopAt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 4

    whole = trainer_of(tiny_model(processor, dropout=0.1), folder="whole", **settings)
    whole.train()
    first = trainer_of(tiny_model(processor, dropout=0.1), folder="part", **settings)
    first.add_callback(StopAt())
    first.train()
    second = trainer_of(tiny_model(processor, seed=1, dropout=0.1), folder="part", **settings)
    second.train(resume_from_checkpoint=True)
    assert second.state.global_step == 8
    assert logged(second, "loss") == logged(whole, "loss")
    assert_equal_weights(weights(whole.model), weights(second.model))


def test_projections_and_temperature_have_their_own_learning_rate_and_the_temperature_no_decay(trainer_of):
    trainer = trainer_of(learning_rate=1e-4, projection_learning_rate=1e-2, weight_decay=0.1)
    groups = trainer.create_optimizer().param_groups
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    seen = []
    for group in groups:
        for parameter in group["params"]:
            name = names[parameter]
            seen.append(name)
            assert group["lr"] == (1e-2 if any(part in name for part in PROJECTIONS) else 1e-4), name
            assert group["weight_decay"] == (0.0 if parameter.ndim < 2 else 0.1), name
    trainable = [name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad]
    assert sorted(seen) == sorted(trainable)


def test_the_temperature_is_not_clamped(trainer_of, processor):
    model = tiny_model(processor)
    model.model.logit_scale.data.fill_(math.log(300))  # CLIP's own training stops at 100
    trainer = trainer_of(model, max_steps=1)
    trainer.train()
    assert logged(trainer, "logit_scale")[0] == pytest.approx(300, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_too_coarse_to_be_trained_are_refused(trainer_of, processor, dtype):
    with pytest.raises(ValueError, match=r"is torch\..*float16.* `dtype=torch\.float32`; .* `bf16=True`"):
        trainer_of(tiny_model(processor).to(dtype))
    model = tiny_model(processor)
    model.model.vision_tower.to(dtype)  # what is frozen may be as coarse as it likes
    trainer_of(model).train()


def test_in_mixed_precision_the_temperature_moves_as_in_full(trainer_of, processor):
    moved = []
    for bf16 in (False, True):
        model = tiny_model(processor)
        before = model.model.logit_scale.item()
        trainer_of(model, bf16=bf16, max_steps=10, learning_rate=1e-4).train()
        moved.append(model.model.logit_scale.item() - before)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert abs(moved[0]) > 1e-4
    assert moved[1] == pytest.approx(moved[0], rel=0.2)


def test_image_rows_start_as_long_as_sentences_and_pointing_the_same_way(trainer_of, processor):
    model = tiny_model(processor)
    trainer = trainer_of(model, per_device_train_batch_size=12, max_steps=1, learning_rate=0.0)
    trainer.train()
    tokens = processor.tokenizer([pair["caption"] for pair in tiny_pairs()], padding=True, return_tensors="pt")
    rows = torch.cat([pair["image_embeds"] for pair in tiny_pairs()])
    with torch.no_grad():
        sentences = model.get_text_features(**tokens).pooler_output
        seen = model.model.text_projection(model.model.image_to_decoder(rows))  # W_e W_i V = s V
    torch.testing.assert_close(seen.norm(dim=-1).mean(), sentences.norm(dim=-1).mean())
    torch.testing.assert_close(torch.cosine_similarity(seen, rows), torch.ones(12))


def test_a_distilled_model_goes_on_from_its_own_image_matrix(trainer_of, processor, tmp_path):
    trainer = trainer_of()
    trainer.train()
    trainer.save_model(str(tmp_path / "distilled"))
    learned = trainer.model.model.image_to_decoder.weight
    for asked, kept in (
        ({}, True),
        ({"init_image_to_decoder": False}, True),
        ({"init_image_to_decoder": True}, False),
    ):
        model = VLKDForConditionalGeneration.from_pretrained(tmp_path / "distilled")
        trainer_of(model, learning_rate=0.0, **asked).train()
        assert torch.equal(model.model.image_to_decoder.weight, learned) == kept
    new = tiny_model(processor)
    trainer_of(new, learning_rate=0.0, init_image_to_decoder=False).train()
    assert torch.equal(new.model.image_to_decoder.weight, tiny_model(processor).model.image_to_decoder.weight)


def test_the_image_matrix_starts_alike_whatever_the_batch_size_and_the_devices(trainer_of, processor):
    """Eight of one device are four each of two: what the batch of one process is must not matter."""
    starts = []
    for size in (2, 8):
        model = tiny_model(processor)
        trainer_of(model, learning_rate=0.0, max_steps=1, per_device_train_batch_size=size).train()
        starts.append(model.model.image_to_decoder.weight)
    assert torch.equal(*starts)


def test_the_checkpoint_is_complete_though_training_saw_image_rows_only(trainer_of, processor, tmp_path):
    trainer = trainer_of()
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    loaded = VLKDForConditionalGeneration.from_pretrained(tmp_path / "saved")
    assert_equal_weights(weights(trainer.model), weights(loaded))
    prompts = VLKDProcessor.from_pretrained(tmp_path / "saved").caption_prompts(1)
    assert prompts == processor.caption_prompts(1)


def test_the_best_checkpoint_is_loaded_at_the_end(trainer_of, processor, replay):
    model = tiny_model(processor)
    asked, rows = ["what color is the shape?", "is there a circle?"], torch.ones(2, 1, DIM)
    [said, _] = generate_answers(model, processor, asked, image_embeds=rows)
    trainer = trainer_of(
        model,
        eval_dataset=tiny_pairs(4),
        question_set=QuestionSet(asked, [said[0]["answer"], "another"], rows),
        eval_on_start=True,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_icti",
        greater_is_better=True,  # so that a middle or early step is the best: the loss falls
        learning_rate=1e-2,
        replay=replay,
    )
    trainer.train()
    scores = logged(trainer, "eval_icti")[1:]  # the first is of the start
    assert trainer.state.best_metric == max(scores)
    assert scores.index(max(scores)) < len(scores) - 1
    assert trainer.evaluate()["eval_icti"] == pytest.approx(max(scores), rel=1e-6)
    assert logged(trainer, "eval_vqa_accuracy")[0] == 0.5
    assert "eval_replay" not in trainer.state.log_history[-1]


def test_retrieval_knows_pictures_by_their_rows_and_captions_by_their_tokens(trainer_of, processor):
    """Three captions each of four pictures, some captions of two pictures, in batches of five."""
    rows, places = [pair["image_embeds"] for pair in tiny_pairs(4)], [index // 3 for index in range(12)]
    texts = [0, 1, 2, 2, 3, 4, 5, 6, 7, 0, 8, 9]
    pairs = [
        {**pair, "image_embeds": rows[place].clone(), "caption": CAPTIONS[text]}
        for pair, place, text in zip(tiny_pairs(), places, texts)
    ]
    model = tiny_model(processor).eval()
    metrics = trainer_of(model, eval_dataset=pairs, per_device_eval_batch_size=5).evaluate()
    tokens = processor.tokenizer([CAPTIONS[text] for text in texts], padding=True, return_tensors="pt")
    with torch.no_grad():
        sentences = model.get_text_features(**tokens).pooler_output
    images = torch.stack([rows[place][0] for place in places])
    expected = image_text_recall(images, sentences, torch.tensor(places), torch.tensor(texts), ks=(1, 5, 10))
    for direction, recalls in zip(("i2t", "t2i"), expected):
        names = [f"eval_retrieval_{direction}{end}" for end in ("", "_at_5", "_at_10")]
        assert [metrics[name] for name in names] == pytest.approx(recalls)
    assert 0 < expected[0][0] < 1
    assert (metrics["eval_retrieval_pairs"], metrics["eval_retrieval_pictures"]) == (12, 4)


def test_evaluation_does_not_depend_on_the_batch_size(trainer_of, processor):
    pairs = [{**pair, "caption": pair["caption"] * (1 + index % 3)} for index, pair in enumerate(tiny_pairs())]
    runs = []
    for size in (12, 5, 1):
        trainer = trainer_of(
            tiny_model(processor),
            eval_dataset=pairs,
            per_device_eval_batch_size=size,
            itcl_weight=0.0,
            icti_weight=3.0,
        )
        runs.append(trainer.evaluate())
        expected = 1000 * runs[-1]["eval_ttdm"] + 3 * runs[-1]["eval_icti"]
        assert runs[-1]["eval_loss"] == pytest.approx(expected, rel=1e-6)
    for name in ("eval_loss", "eval_ttdm", "eval_icti", "eval_retrieval_i2t_at_5"):
        assert [run[name] for run in runs] == pytest.approx([runs[0][name]] * 3, rel=1e-5), name


def test_evaluation_weights_contrast_by_pairs(trainer_of, processor):
    pairs = tiny_pairs(5)
    values = []
    for part in (pairs, pairs[:4], pairs[4:]):
        trainer = trainer_of(tiny_model(processor), eval_dataset=part, per_device_eval_batch_size=4)
        values.append(trainer.evaluate()["eval_itcl"])
    assert values[0] == pytest.approx((4 * values[1] + values[2]) / 5, rel=1e-5)
    assert values[2] == 0.0  # one pair has no negatives


def test_sets_to_evaluate_on_are_not_mixed_up_by_workers_that_persist(trainer_of):
    sets = {"a": tiny_pairs(4), "b": tiny_pairs(6, seed=1)}
    expected = trainer_of(eval_dataset=sets).evaluate()
    assert (expected["eval_a_retrieval_pairs"], expected["eval_b_retrieval_pairs"]) == (4, 6)
    workers = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True, "dataloader_pin_memory": False}
    trainer = trainer_of(eval_dataset=sets, **workers)
    names = [name for name in expected if "icti" in name or "pairs" in name]
    for given in (None, sets, None):
        found = trainer.evaluate(given)
        assert {name: found[name] for name in names} == {name: expected[name] for name in names}


def test_a_stream_can_be_evaluated_on(trainer_of):
    plain = trainer_of(eval_dataset=PairStream(tiny_pairs(6))).evaluate()
    length = trainer_of(eval_dataset=PairStreamWithLength(tiny_pairs(6)), per_device_eval_batch_size=4).evaluate()
    assert plain["eval_retrieval_pairs"] == length["eval_retrieval_pairs"] == 6
    assert plain["eval_icti"] == pytest.approx(length["eval_icti"], rel=1e-5)


def test_evaluation_draws_the_same_masks_each_time(trainer_of):
    trainer = trainer_of(eval_dataset=tiny_pairs())
    assert trainer.evaluate()["eval_icti"] == trainer.evaluate()["eval_icti"]


def test_epochs_draw_other_masks_and_other_texts(trainer_of, replay):
    examples = trainer_of(replay=replay, replay_per_pair=1.5).train_dataset
    first = [examples[index] for index in range(12)]
    examples.set_epoch(1)
    second = [examples[index] for index in range(12)]
    assert all(a["draw"] != b["draw"] for a, b in zip(first, second))
    counts = [len(example["replay"]) for example in first + second]
    assert set(counts) == {1, 2}
    examples.set_epoch(0)
    assert [examples[index]["draw"] for index in range(12)] == [example["draw"] for example in first]


def test_pixels_and_replay_go_together(trainer_of, replay):
    pairs = [{"pixel_values": torch.ones(3, 8, 8) * index, "caption": CAPTIONS[index]} for index in range(4)]
    trainer = trainer_of(train_dataset=pairs, replay=replay, ttdm_weight=0.0)
    trainer.train()
    assert logged(trainer, "replay")[0] > 0


def test_any_collator_of_the_captions_goes_with_replay(trainer_of, processor, replay):
    collate, losses = VLKDDistillationCollator(processor), []
    for given in (None, collate, lambda examples: collate(examples)):
        trainer = trainer_of(tiny_model(processor), replay=replay, data_collator=given)
        trainer.train()
        losses.append(logged(trainer, "loss"))
    assert losses[0] == losses[1] == losses[2]


def test_a_collator_of_the_users_sees_what_it_may_read_unless_told_otherwise(trainer_of, processor):
    collate, seen = VLKDDistillationCollator(processor), set()

    def watch(examples):
        seen.update(name for example in examples for name in example)
        return collate(examples)

    pairs = [{**pair, "extra": 1} for pair in tiny_pairs()]
    for remove_unused_columns in (True, False):
        seen.clear()
        trainer = trainer_of(
            train_dataset=pairs,
            data_collator=watch,
            remove_unused_columns=remove_unused_columns,
            max_steps=1,
            init_image_to_decoder=False,  # whose batches are made of whole examples
        )
        trainer.train()
        assert {"caption", "image_embeds", "draw"} <= seen
        assert ("extra" in seen) != remove_unused_columns


def test_loader_workers_change_nothing(trainer_of, processor, replay):
    losses = []
    for workers in (0, 2):
        trainer = trainer_of(
            tiny_model(processor),
            replay=replay,
            max_steps=6,
            dataloader_num_workers=workers,
            dataloader_persistent_workers=workers > 0,  # they live through two epochs
            dataloader_pin_memory=False,
        )
        trainer.train()
        losses.append(logged(trainer, "loss"))
    assert losses[0] == losses[1]


def test_loader_workers_change_nothing_on_a_stream(trainer_of, processor):
    losses = []
    for workers in (0, 2):
        trainer = trainer_of(
            tiny_model(processor),
            PairStream(tiny_pairs()),
            max_steps=6,
            dataloader_num_workers=workers,
            dataloader_persistent_workers=workers > 0,
            dataloader_pin_memory=False,
        )
        trainer.train()
        losses.append(logged(trainer, "loss"))
    assert losses[0] == losses[1]


def test_each_pass_over_a_stream_draws_other_masks(trainer_of, processor):
    trainer = trainer_of(
        tiny_model(processor), PairStream(tiny_pairs(4) * 2), learning_rate=0.0, max_steps=6, ttdm_weight=0.0
    )
    trainer.train()
    icti = logged(trainer, "icti")  # two steps a pass, on the same pairs
    assert icti[0] == pytest.approx(icti[1], rel=1e-6)  # the same pairs in the same epoch
    assert len({round(value, 5) for value in icti}) == 3


def test_data_sets_and_streams_of_datasets_train_alike_and_bring_further_columns(trainer_of, processor):
    pairs = [
        {name: torch.as_tensor(value).tolist() if name != "caption" else value for name, value in pair.items()}
        for pair in tiny_pairs()
    ]
    dataset = datasets.Dataset.from_list(pairs).add_column("source", ["somewhere"] * len(pairs))
    expected = trainer_of(tiny_model(processor), train_sampling_strategy="sequential")
    mapped = trainer_of(tiny_model(processor), dataset, train_sampling_strategy="sequential")
    streamed = trainer_of(tiny_model(processor), dataset.to_iterable_dataset())
    for trainer in (expected, mapped, streamed):
        trainer.train()
    assert logged(mapped, "loss") == pytest.approx(logged(expected, "loss"), rel=1e-5)
    assert logged(streamed, "ttdm")[0] == pytest.approx(logged(expected, "ttdm")[0], rel=1e-4)  # the masks differ


def test_a_stream_cannot_be_joined_by_replay(trainer_of, replay):
    with pytest.raises(ValueError, match="this one streams"):
        trainer_of(train_dataset=datasets.Dataset.from_list([{"caption": "a"}]).to_iterable_dataset(), replay=replay)


def test_terms_are_reported_to_tensorboard(trainer_of, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    trainer_of(report_to="tensorboard").train()
    [events] = (tmp_path / "board").rglob("events.out.*")
    written = events.read_bytes()
    assert all(f"train/{name}".encode() in written for name in ("ttdm", "itcl", "icti", "logit_scale"))


def test_missing_parts_are_named(trainer_of, replay, processor):
    with pytest.raises(ValueError, match="text_teacher_embeds"):
        trainer_of(train_dataset=[{"image_embeds": torch.ones(1, DIM), "caption": "a red box"}] * 4).train()
    with pytest.raises(ValueError, match="'image_embeds', 'pixel_values' or 'image'"):
        trainer_of(train_dataset=[{"caption": "a red box"}] * 4, ttdm_weight=0.0).train()
    with pytest.raises(ValueError, match=r"mask_ratio=1\.5"):
        trainer_of(mask_ratio=1.5)
    with pytest.raises(ValueError, match=r"label_smoothing_factor=0\.1"):
        trainer_of(label_smoothing_factor=0.1)
    model = tiny_model(processor)
    model.config.freeze_vision_tower = False
    with pytest.raises(ValueError, match="frozen vision tower"):
        trainer_of(model, replay=replay)
    with pytest.raises(ValueError, match=r"freeze_vision_tower=False.*keep_pixels"):
        trainer_of(model).train()
    with pytest.raises(ValueError, match=r"per_device_train_batch_size=1 .* `itcl_weight=0`"):
        trainer_of(per_device_train_batch_size=1)
    trainer_of(per_device_train_batch_size=1, itcl_weight=0.0, max_steps=1).train()


def test_a_vision_tower_is_trained_on_pictures(trainer_of, processor):
    config = tiny_model(processor).config
    config.freeze_vision_tower = False
    model = VLKDForConditionalGeneration(config)
    before = weights(model.model.vision_tower)
    pairs = [{"pixel_values": torch.ones(3, 8, 8) * index, "caption": CAPTIONS[index]} for index in range(4)]
    trainer_of(model, pairs, ttdm_weight=0.0).train()
    after = model.model.vision_tower.state_dict()
    assert all(torch.equal(before[name], after[name]) == name.endswith("position_ids") for name in before)


@pytest.mark.slow  # four interpreters import torch and transformers
def test_two_processes_are_one_with_twice_the_batch(tmp_path):
    script = Path(__file__).parent / "distill_two_processes.py"
    states, models = [], []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        launch = [sys.executable, "-m", "accelerate.commands.launch", f"--num_processes={processes}"]
        launch += ["--multi_gpu"] * (processes > 1)  # how `accelerate launch` spells several processes, also on CPUs
        launch += ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
        subprocess.run(
            [*launch, script, folder, str(4 // processes)], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        states.append(json.loads((folder / "trainer_state.json").read_text())["log_history"])
        models.append(VLKDForConditionalGeneration.from_pretrained(folder))
    one, two = (weights(model) for model in models)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-6)
    compared = {"loss", "ttdm", "itcl", "icti", "replay", "eval_retrieval_i2t", "eval_vqa_accuracy"}
    met: set[str] = set()
    for entry, other in zip(*states):
        for name in entry.keys() & compared:
            met.add(name)
            assert entry[name] == pytest.approx(other[name], rel=1e-4), name
    assert met == compared


def test_what_is_missing_is_named(tmp_path):
    processor = tiny_processor()
    args = VLKDDistillationConfig(str(tmp_path), report_to="none", max_steps=1)
    with pytest.raises(ValueError, match="VLKDProcessor of the model as `processing_class`"):
        VLKDDistillationTrainer(tiny_model(processor), args, train_dataset=tiny_pairs())
    with pytest.raises(ValueError, match="needs a `train_dataset`"):
        VLKDDistillationTrainer(tiny_model(processor), args, processing_class=processor).train()
