"""Self-critical training: the loss, the baselines, which tokens were sampled, and a model that earns more."""

import pytest
import torch
from tiny_training import CAPTIONS, COLORS, DIM, SHAPES, tiny_model, tiny_processor
from transformers import Seq2SeqTrainingArguments

from modeling_vlkd.evaluation.cider import DocumentFrequencies
from modeling_vlkd.trainers.self_critical import (
    CaptionReward,
    PictureCollator,
    SelfCriticalTrainer,
    advantages_of,
    decoding_plainly,
    sampled_tokens,
    self_critical_loss,
)


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def examples() -> list[dict]:
    rows = torch.zeros(12, 1, DIM)
    for row, (color, shape) in zip(rows, [(color, shape) for color in COLORS for shape in SHAPES]):
        row[0, COLORS.index(color)] = row[0, len(COLORS) + SHAPES.index(shape)] = 3.0
    return [{"image_embeds": row, "position": position} for position, row in enumerate(rows)]


@pytest.fixture(scope="module")
def reward() -> CaptionReward:
    references = [[text.removeprefix("A picture of ").removesuffix(".")] for text in CAPTIONS]
    return CaptionReward(references, DocumentFrequencies.of(references))


SETTINGS = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", "seed": 0}
SETTINGS |= {"remove_unused_columns": False, "logging_steps": 1}


def trainer_of(processor, examples, reward, folder, model=None, samples=4, baseline="mean", **settings):
    model = model or tiny_model(processor)
    model.generation_config.max_new_tokens = 6
    model.generation_config.update(
        **{"force_prefix": True, "mask_token_id": processor.tokenizer.mask_token_id, "num_beams": 2},
        allow_custom_entries=True,
    )
    return SelfCriticalTrainer(
        model,
        Seq2SeqTrainingArguments(folder, **{"per_device_train_batch_size": 12, **SETTINGS, **settings}),
        data_collator=PictureCollator(processor),
        train_dataset=examples,
        processing_class=processor,
        reward=reward,
        samples=samples,
        baseline=baseline,
    )


def test_the_gradient_is_that_of_reinforce_written_out():
    torch.manual_seed(0)
    logits = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    tokens, mask = torch.randint(0, 5, (4, 3)), torch.tensor([[1, 1, 0], [0, 1, 1], [1, 1, 1], [1, 0, 0]]).bool()
    advantages = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)
    log_probabilities = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    [found] = torch.autograd.grad(self_critical_loss(log_probabilities, mask, advantages, 4), logits)
    # d log softmax(z)_a / dz = onehot(a) - softmax(z)
    expected = torch.zeros_like(logits)
    for sample in range(4):
        for place in range(3):
            if mask[sample, place]:
                direction = -logits[sample, place].softmax(-1)
                direction[tokens[sample, place]] += 1
                expected[sample, place] = -advantages[sample] * direction / 4
    torch.testing.assert_close(found, expected.detach(), rtol=1e-10, atol=1e-12)


def test_what_was_to_be_expected_is_subtracted():
    rewards = torch.tensor([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]])
    advantages, baselines = advantages_of(rewards, None)
    torch.testing.assert_close(baselines, torch.tensor([[4.0, 3.5, 1.5], [3.0, 3.0, 3.0]]))
    torch.testing.assert_close(advantages, rewards - baselines)
    advantages, _ = advantages_of(rewards, torch.tensor([2.0, 5.0]))
    torch.testing.assert_close(advantages, torch.tensor([[-1.0, 0.0, 4.0], [-2.0, -2.0, -2.0]]))


@pytest.mark.parametrize("force_prefix", [True, False])
def test_one_pass_gives_the_probabilities_of_sampling(processor, examples, reward, tmp_path, force_prefix: bool):
    """Those that `generate()` reports of its own choices, and zero for what was forced or pads."""
    trainer = trainer_of(processor, examples, reward, tmp_path, tiny_model(processor, dropout=0.5))
    model = trainer.model
    model.generation_config.force_prefix = force_prefix
    model.generation_config.forced_bos_token_id = processor.tokenizer.bos_token_id
    model.eval()
    inputs = PictureCollator(processor)(examples[:3])
    inputs.pop("positions")
    torch.manual_seed(1)
    with decoding_plainly(model, 4):
        output = model.generate(**inputs, return_dict_in_generate=True, output_scores=True)
    assert model.generation_config.num_beams == 2  # the checkpoint's own settings are back
    found = trainer.log_probabilities(model, inputs, output.sequences)
    mask = sampled_tokens(output.sequences, inputs["input_ids"], model)
    reported = model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
    new = reported.shape[1]
    written = output.sequences[:, -new:]
    first_end = (written == processor.tokenizer.eos_token_id).int().argmax(dim=1)
    ended = (written == processor.tokenizer.eos_token_id).any(dim=1)
    for row in range(12):
        last = int(first_end[row]) + 1 if ended[row] else new
        start = 0 if force_prefix else 1  # `<s>` is forced
        assert mask[row].sum() == last - start
        chosen = found[row, -new:][start:last]
        torch.testing.assert_close(chosen, reported[row, start:last], rtol=1e-4, atol=1e-5)
    assert not ended.all()  # BART would force an end on texts of full length
    assert ended.any()  # so that what pads was tested
    known = int((inputs["input_ids"][0] == processor.tokenizer.mask_token_id).int().argmax())
    assert mask[:, : known if force_prefix else 1].sum() == 0


@pytest.mark.parametrize("baseline", ["mean", "greedy"])
def test_samples_earn_more_after_training(processor, examples, reward, tmp_path, baseline: str):
    trainer = trainer_of(
        processor,
        examples,
        reward,
        tmp_path,
        baseline=baseline,
        max_steps=40,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
    )
    before = {name: tensor.clone() for name, tensor in trainer.model.model.vision_tower.state_dict().items()}
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert len(log) == 40
    first, last = (sum(entry["reward"] for entry in part) / 5 for part in (log[:5], log[-5:]))
    assert last > first + 0.3
    assert all(0 < entry["reward_share"] < 1 for entry in log)
    after = trainer.model.model.vision_tower.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_loss_of_an_update_is_divided_by_its_samples(processor, examples, reward, tmp_path):
    """With rewards that do not depend on what is drawn, the gradient of pictures adds up over micro-batches."""
    trainer = trainer_of(processor, examples[:4], reward, tmp_path, samples=2)
    batch = PictureCollator(processor)(examples[:4])
    sequences = trainer.write({name: batch[name] for name in batch if name != "positions"}, 2)
    trainer.write = lambda inputs, samples: sequences[: 2 * len(inputs["input_ids"])]
    whole = trainer.compute_loss(trainer.model, batch).item()
    part = trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(8.0)).item()
    assert part == pytest.approx(whole / 2, rel=1e-5)


def test_a_reward_remembers_how_texts_were_cut(reward):
    found = reward(["a red circle", "a red circle", "A blue box!"], [0, 1, 4])
    assert found[0] == pytest.approx(reward(["a red circle"], [0])[0])
    assert found[0] > found[1]
    assert reward.tokenized["A blue box!"] == "a blue box"
    assert found[2] == pytest.approx(reward(["a blue box"], [4])[0])


@pytest.mark.parametrize(("samples", "baseline"), [(1, "mean"), (0, "greedy"), (5, "median")])
def test_settings_that_make_no_sense_are_refused(processor, examples, reward, tmp_path, samples: int, baseline: str):
    with pytest.raises(ValueError, match=r"samples=|baseline="):
        trainer_of(processor, examples, reward, tmp_path, samples=samples, baseline=baseline)
