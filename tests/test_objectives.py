import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
import torch.nn.functional as F

from modeling_vlkd.trainers import image_text_contrastive_loss, text_infilling_loss, text_text_distance_loss


def unit_rows(seed: int, count: int = 4, dim: int = 8) -> torch.Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_text_distance_is_two_minus_two_cosines_over_dim():
    student, teacher = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 1.0]])  # 45 degrees apart, lengths of no matter
    expected = 2 * (1 - torch.tensor(0.5).sqrt()) / 2
    torch.testing.assert_close(text_text_distance_loss(student, teacher), expected)


def test_text_distance_refuses_another_number_of_teacher_vectors():
    with pytest.raises(ValueError, match="one teacher vector per sentence"):
        text_text_distance_loss(torch.ones(2, 4), torch.ones(1, 4))


def test_contrastive_loss_is_log_batch_for_identical_rows():
    rows = torch.ones(4, 8) / 8**0.5
    torch.testing.assert_close(image_text_contrastive_loss(rows, rows, torch.tensor(1.0)), torch.tensor(4.0).log())


def test_contrastive_loss_of_orthogonal_pairs_is_known():
    scale = torch.tensor(2.0)
    expected = torch.log1p(3 * torch.exp(-scale))  # one right logit of 2 and three wrong ones of 0
    torch.testing.assert_close(image_text_contrastive_loss(torch.eye(4), torch.eye(4), scale), expected)


def test_contrastive_loss_is_symmetric_and_its_temperature_has_a_gradient():
    images, texts, scale = unit_rows(0), unit_rows(1), torch.tensor(7.0, requires_grad=True)
    loss = image_text_contrastive_loss(images, texts, scale)
    torch.testing.assert_close(loss, image_text_contrastive_loss(texts, images, scale))
    loss.backward()
    assert scale.grad.abs() > 1e-4


def test_infilling_loss_of_uniform_logits_is_log_vocabulary():
    labels = torch.tensor([[3, 4, -100], [5, -100, -100]])
    torch.testing.assert_close(text_infilling_loss(torch.zeros(2, 3, 10), labels), torch.tensor(10.0).log())


def test_infilling_losses_of_micro_batches_add_up_to_that_of_the_batch():
    logits = torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[3, 4, 6], [5, -100, -100]])
    parts = [text_infilling_loss(logits[i : i + 1], labels[i : i + 1], num_tokens=4) for i in range(2)]
    torch.testing.assert_close(sum(parts), text_infilling_loss(logits, labels))


def test_infilling_loss_without_labels_is_zero():
    assert text_infilling_loss(torch.zeros(1, 2, 10), torch.full((1, 2), -100)) == 0


def half_of_the_batch(rank: int, folder: str):
    """Runs in a process of its own; writes loss and gradient, averaged over processes as DDP does."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    weight, scale = torch.eye(8, requires_grad=True), torch.tensor(5.0, requires_grad=True)  # shared parameters
    half = slice(2 * rank, 2 * rank + 2)
    loss = image_text_contrastive_loss(unit_rows(0)[half] @ weight, unit_rows(1)[half] @ weight, scale, gather=True)
    loss.backward()
    averages = [loss.detach(), weight.grad, scale.grad]
    for tensor in averages:
        dist.all_reduce(tensor)
        tensor /= 2
    torch.save(averages, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_gathered_loss_on_two_processes_is_that_of_the_whole_batch(tmp_path):
    torch.multiprocessing.start_processes(half_of_the_batch, args=(str(tmp_path),), nprocs=2, start_method="fork")
    weight, scale = torch.eye(8, requires_grad=True), torch.tensor(5.0, requires_grad=True)
    whole = image_text_contrastive_loss(unit_rows(0) @ weight, unit_rows(1) @ weight, scale)
    whole.backward()
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), [whole.detach(), weight.grad, scale.grad])


def test_embeddings_are_compared_in_fp32_whatever_comes_in():
    images, texts, scale = unit_rows(0).bfloat16(), unit_rows(1).bfloat16(), torch.tensor(50.0)
    contrastive = image_text_contrastive_loss(images.float(), texts.float(), scale)
    distance = text_text_distance_loss(images.float(), texts.float())
    with torch.autocast("cpu", torch.bfloat16):
        for rows in ((images.float(), texts.float()), (images, texts)):
            assert torch.equal(image_text_contrastive_loss(*rows, scale), contrastive)
            assert torch.equal(text_text_distance_loss(*rows), distance)
    assert torch.equal(image_text_contrastive_loss(images, texts, scale.bfloat16()), contrastive)
    assert torch.equal(text_text_distance_loss(images, texts), distance)
