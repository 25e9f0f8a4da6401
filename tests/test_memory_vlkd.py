"""The memory C and its masks, with values that are known on paper."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from modeling_vlkd.memory_vlkd import attach_unused, build_memory, cover_image_rows, mask_of_text, pool_sentence


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("text_pooling", ["bos", "eos", "mean"])
def test_sentence_is_pooled_from_attended_states(text_pooling: str, side: str):
    states = torch.arange(8.0).view(1, 4, 2)  # rows (0, 1), (2, 3), (4, 5), (6, 7)
    mask, kept = ([[0, 1, 1, 1]], [1, 2, 3]) if side == "left" else ([[1, 1, 1, 0]], [0, 1, 2])
    expected = {"bos": states[0, kept[0]], "eos": states[0, kept[-1]], "mean": states[0, kept].mean(0)}[text_pooling]
    assert torch.equal(pool_sentence(states, torch.tensor(mask), text_pooling)[0], expected)
    whole = {"bos": states[0, 0], "eos": states[0, 3], "mean": states[0].mean(0)}[text_pooling]
    assert torch.equal(pool_sentence(states, None, text_pooling)[0], whole)


@pytest.mark.parametrize(("text_pooling", "expected"), [("bos", [1, 10]), ("eos", [2, 30]), ("mean", [1.5, 20])])
def test_each_text_of_a_batch_is_pooled_by_its_own_mask(text_pooling: str, expected: list[float]):
    states = torch.tensor([[1.0, 2.0, 99.0], [10.0, 20.0, 30.0]])[..., None]  # (2, 3, 1)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert pool_sentence(states, mask, text_pooling)[:, 0].tolist() == expected


def test_pooled_states_keep_their_type():
    states = torch.ones(1, 2, 3, dtype=torch.bfloat16)
    for text_pooling in ("bos", "eos", "mean"):
        assert pool_sentence(states, torch.ones(1, 2, dtype=torch.long), text_pooling).dtype is torch.bfloat16


@pytest.fixture
def matrices() -> tuple[Tensor, Tensor, Tensor]:
    """Draw W_e, W'_e and W_i for a d_model of 5 and a projection_dim of 4."""
    generator = torch.Generator().manual_seed(0)
    w_e, w_e_back, w_i = (torch.randn(shape, generator=generator) for shape in ((4, 5), (5, 4), (5, 4)))
    return w_e, w_e_back, w_i


def memory_of(text_states: Tensor, image_embeds: Tensor | None, matrices: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    w_e, w_e_back, w_i = matrices
    return build_memory(text_states, image_embeds, lambda e: e @ w_e.T @ w_e_back.T, lambda v: v @ w_i.T, 4)


def test_memory_is_image_rows_and_then_bridged_text(matrices):
    w_e, w_e_back, w_i = matrices
    text_states, image_embeds = torch.randn(2, 3, 5), torch.randn(2, 6, 4)
    memory = memory_of(text_states, image_embeds, matrices)
    assert memory.shape == (2, 9, 5)
    for place in range(2):  # eq. (1), one vector at a time
        for row in range(6):
            assert_close(memory[place, row], w_i @ image_embeds[place, row])
        for position in range(3):
            assert_close(memory[place, 6 + position], w_e_back @ (w_e @ text_states[place, position]))
    assert_close(memory_of(text_states, None, matrices), memory[:, 6:])


def test_image_rows_take_the_type_of_the_text(matrices):
    text_states, image_embeds = torch.randn(2, 3, 5), torch.randn(2, 1, 4, dtype=torch.float64)
    assert memory_of(text_states, image_embeds, matrices).dtype is torch.float32


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 4), r"shape \(batch, rows, 4\), as `get_image_rows` returns them; got \(2, 4\)"),
        ((2, 1, 5), r"shape \(batch, rows, 4\), .* got \(2, 1, 5\)"),
        ((1, 1, 4), "Expected one image per text, got 1 images and 2 texts"),
        ((3, 1, 4), "Expected one image per text, got 3 images and 2 texts"),
    ],
)
def test_image_rows_of_another_shape_are_refused(matrices, shape: tuple[int, ...], message: str):
    with pytest.raises(ValueError, match=message):
        memory_of(torch.zeros(2, 3, 5), torch.zeros(shape), matrices)


def test_a_mask_is_extended_by_ones_for_the_image_rows():
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    assert cover_image_rows(mask, 5).tolist() == [[1, 1, 1, 1, 0], [1, 1, 0, 1, 1]]
    assert torch.equal(cover_image_rows(mask, 3), mask)
    assert cover_image_rows(None, 5) is None
    with pytest.raises(ValueError, match="attention_mask covers 3 positions, but the encoder output has 2"):
        cover_image_rows(mask, 2)


def test_the_mask_of_the_text_is_the_end_of_the_whole_mask():
    text, image_embeds = torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 2, 4)
    mask = torch.tensor([[0, 1, 1]])
    whole = torch.tensor([[1, 0, 0, 1, 1]])
    for embeds in (None, image_embeds):
        assert torch.equal(mask_of_text(mask, text, embeds), mask)
        assert mask_of_text(None, text, embeds) is None
    assert torch.equal(mask_of_text(whole, text, image_embeds), mask)
    assert torch.equal(mask_of_text(mask, torch.zeros(1, 3, 8), None), mask)  # embeddings instead of token ids


@pytest.mark.parametrize("shape", [(1, 2), (1, 4), (1, 6), (2, 3), (2, 5)])
def test_a_mask_of_another_shape_is_refused(shape: tuple[int, int]):
    text, image_embeds = torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 2, 4)
    message = rf"shape \(1, 3\), or \(1, 5\) with the image rows, got \({shape[0]}, {shape[1]}\)"
    with pytest.raises(ValueError, match=message):
        mask_of_text(torch.ones(shape), text, image_embeds)
    with pytest.raises(ValueError, match="Expected attention_mask of shape"):
        mask_of_text(torch.ones(1, 5), text, None)  # without an image there are no rows


def test_unused_parameters_get_zero_gradients_and_change_no_value():
    memory = torch.randn(2, 3, 4, requires_grad=True)
    unused = [torch.nn.Parameter(torch.randn(4, 5)), torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))]
    attached = attach_unused(memory, unused)
    assert torch.equal(attached, memory)
    assert attached.dtype is memory.dtype
    (attached * 3).sum().backward()
    assert torch.equal(memory.grad, torch.full_like(memory, 3))
    for parameter in unused:
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))
