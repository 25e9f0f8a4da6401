import pytest
import torch
from accelerate import Accelerator
from transformers.modeling_outputs import ModelOutput

from modeling_vlkd.evaluation.retrieval import PairEvaluation, content_keys


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keys_are_equal_for_equal_rows_only(dtype):
    rows = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows[2] = rows[0]
    keys = content_keys(rows)
    assert keys[0] == keys[2]
    assert len(keys.unique()) == 3
    assert keys[:2].equal(content_keys(rows.transpose(1, 2).contiguous().transpose(1, 2)[:2]))


def test_infilling_is_a_mean_over_tokens_and_the_rest_over_pairs():
    """Two batches, of one pair with one token and of two with two: by logits of 0, each token costs log 8."""
    evaluation, sizes, tokens = PairEvaluation(), (1, 2), (1, 2)
    for size, length in zip(sizes, tokens):
        labels = torch.zeros(size, 3, dtype=torch.long)
        labels[:, length:] = -100
        logits = torch.zeros(size, 3, 8)
        logits[..., 0] = 0.0 if size == 1 else 1e4  # the second batch is certain
        embeds = torch.eye(4)[:size]
        outputs = ModelOutput(logits=logits, image_embeds=embeds, text_embeds=embeds, logit_scale=torch.tensor(1e4))
        inputs = {"labels": labels, "clean_input_ids": labels.clamp(min=0), "image_embeds": embeds[:, None]}
        inputs["clean_attention_mask"] = torch.ones_like(labels)
        terms = evaluation.add(outputs, inputs, -embeds, Accelerator(cpu=True))  # the teacher says the opposite
        assert terms["ttdm"] == pytest.approx(1.0)  # 2 (1 - cosine) / dim
    metrics = evaluation.drain({"ttdm": 10.0, "itcl": 1.0, "icti": 5.0})
    assert metrics["icti"] == pytest.approx(torch.tensor(8.0).log().item() / 5, rel=1e-6)
    assert metrics["itcl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["loss"] == pytest.approx(10 + 5 * metrics["icti"], rel=1e-6)
    assert (metrics["retrieval_pairs"], metrics["retrieval_pictures"]) == (3, 2)
