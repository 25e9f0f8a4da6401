"""The Frozen-style prefix model: what is trained, and that pictures reach the frozen BART."""

import pytest
import torch
from torch.nn.functional import mse_loss

from modeling_vlkd.evaluation.vlkd_model import VLKDAdapter
from modeling_vlkd.miniature.clip_teacher import normalize
from modeling_vlkd.miniature.distilling import WEIGHTS, Teachers, assemble
from modeling_vlkd.miniature.frozen_prefix import PREFIX, FrozenPrefix, train_frozen_prefix
from modeling_vlkd.miniature.world import load_split


@pytest.fixture(scope="module")
def teachers():
    return Teachers.load(WEIGHTS)


@pytest.fixture(scope="module")
def split():
    return load_split("test").part(list(range(20)))


@pytest.fixture
def model(teachers):
    torch.manual_seed(0)
    return FrozenPrefix(teachers)


def test_training_changes_tower_and_matrix_and_no_weight_of_bart(teachers, split):
    start = {name: value.clone() for name, value in FrozenPrefix(teachers).state_dict().items()}
    trained = train_frozen_prefix(teachers, split, steps=2, seed=0)
    changed = {name for name, value in trained.state_dict().items() if not torch.equal(value, start[name])}
    assert {name.split(".")[0] for name in changed} == {"tower", "to_prefix"}
    for name, parameter in trained.bart.named_parameters():
        assert parameter.grad is None, name
    again = train_frozen_prefix(teachers, split, steps=2, seed=0).state_dict()
    assert all(torch.equal(again[name], value) for name, value in trained.state_dict().items())


def test_without_a_picture_it_is_bart(teachers, model, split):
    questions = ["A red circle. what color is the shape?", "There is a teal triangle here. is there a circle?"]
    own = VLKDAdapter(*assemble(teachers)).answer(None, questions)
    assert [each.text for each in model.answer(None, questions)] == [each.text for each in own] == ["red", "no"]


def test_prefix_stands_before_the_text_and_is_attended_to(model, split):
    prompts = model.processor.question_prompts(["what color is the shape?", "is a red shape present?"])
    prefix = model.look(split.images[:2])
    assert prefix.shape == (2, PREFIX, 96)
    states, mask = model.read(prompts, prefix)
    _, alone_mask = model.read(prompts, None)
    assert mask.shape[1] == alone_mask.shape[1] + PREFIX
    other, _ = model.read(prompts, prefix.flip(0))
    assert mse_loss(states.last_hidden_state[:, PREFIX:], other.last_hidden_state[:, PREFIX:]) > 1e-4


def test_gradient_reaches_the_tower_through_bart(model, split):
    pixels = normalize(split.images[:4], model.clip_processor)
    prompts = model.processor.caption_prompts(4)
    model(pixels, prompts, model.processor.filled_captions(["a red circle"] * 4)).backward()
    assert all(parameter.grad is not None for parameter in model.to_prefix.parameters())
    assert model.tower.visual_projection.weight.grad.abs().sum() > 0


def test_it_learns_the_captions_of_a_batch(model, split):
    pixels = normalize(split.images[:4], model.clip_processor)
    prompts = model.processor.caption_prompts(4)
    targets = model.processor.filled_captions([f"a {scene.color} {scene.shape}" for scene in split.scenes[:4]])
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=2e-3)
    losses = []
    for _ in range(40):
        loss = model(pixels, prompts, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_answers_do_not_depend_on_what_else_is_asked(model, split):
    together = model.answer(split.images, split.questions[:12], split.image_index[:12])
    alone = [
        model.answer(split.images, [question], [index])[0]
        for question, index in zip(split.questions[:12], split.image_index[:12])
    ]
    assert together == alone
