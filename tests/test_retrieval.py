import pytest
import torch

from modeling_vlkd.evaluation.retrieval import content_keys


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keys_are_equal_for_equal_rows_only(dtype):
    rows = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows[2] = rows[0]
    keys = content_keys(rows)
    assert keys[0] == keys[2]
    assert len(keys.unique()) == 3
    assert keys[:2].equal(content_keys(rows.transpose(1, 2).contiguous().transpose(1, 2)[:2]))
