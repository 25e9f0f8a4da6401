import pytest
import torch

from modeling_vlkd.conversion.errors import ConversionError, StateDictError
from modeling_vlkd.conversion.state_dicts import Rule, convert_state_dict


RULES = [
    Rule("blocks.{n}.norm.count", "layers.{n}.norm.count", optional=True),
    Rule("blocks.{n}.norm.{p}", "layers.{n}.norm.{p}"),
    Rule("blocks.{n}.qkv_{p}", ("layers.{n}.q.{p}", "layers.{n}.k.{p}", "layers.{n}.v.{p}")),
    Rule("proj", "projection.weight", transpose=True),
    Rule("scale", "scale"),
]


def source_and_target():
    source = {
        "blocks.0.norm.weight": torch.tensor([1.0, 2.0]),
        "blocks.0.qkv_weight": torch.arange(12.0).reshape(6, 2),
        "proj": torch.arange(6.0).reshape(2, 3),
        "scale": torch.tensor([4.0]),
    }
    target = {
        "layers.0.norm.weight": torch.empty(2),
        "layers.0.norm.count": torch.empty((), dtype=torch.long),
        **{f"layers.0.{name}.weight": torch.empty(2, 2) for name in "qkv"},
        "projection.weight": torch.empty(3, 2),
        "scale": torch.empty(()),
    }
    return source, {key: tensor.to("meta") for key, tensor in target.items()}


def test_tensors_are_renamed_cut_and_transposed():
    source, target = source_and_target()
    result = convert_state_dict(source, RULES, target)
    assert set(result) == set(target) - {"layers.0.norm.count"}  # the optional counter, which the source lacks
    torch.testing.assert_close(result["layers.0.norm.weight"], source["blocks.0.norm.weight"])
    torch.testing.assert_close(result["layers.0.q.weight"], torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    torch.testing.assert_close(result["layers.0.v.weight"], torch.tensor([[8.0, 9.0], [10.0, 11.0]]))
    torch.testing.assert_close(result["projection.weight"], source["proj"].T)
    assert result["scale"].shape == ()


def test_results_are_contiguous_copies_in_the_targets_dtype():
    source, target = source_and_target()
    result = convert_state_dict({key: tensor.half() for key, tensor in source.items()}, RULES, target)
    assert all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in result.values())
    assert result["projection.weight"].untyped_storage().nbytes() == 24  # so it does not keep the source's memory


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra.weight": torch.zeros(1)}, "unknown 'extra.weight'"),
        ({"blocks.1.norm.weight": torch.zeros(2)}, "unknown 'blocks.1.norm.weight'"),
        ({"blocks.0.qkv_weight": None}, "missing 'blocks.0.qkv_weight'"),
        ({"proj": None, "extra": torch.zeros(1)}, "missing 'proj'; unknown 'extra'"),
        ({"proj": torch.zeros(3, 2)}, r"'proj' has shape \(3, 2\), but the architecture wants \(2, 3\)"),
        ({"blocks.0.qkv_weight": torch.zeros(9, 2)}, r"'blocks.0.qkv_weight' has shape \(9, 2\).*wants \(6, 2\)"),
        ({"blocks.0.qkv_weight": torch.zeros(7, 2)}, "cannot be cut into 3 equal parts"),
        ({"scale": torch.tensor(float("nan"))}, "'scale' holds values that are not finite"),
    ],
)
def test_what_does_not_fit_is_named_by_the_sources_key(change, message):
    source, target = source_and_target()
    source = {key: tensor for key, tensor in {**source, **change}.items() if tensor is not None}
    with pytest.raises(StateDictError, match=message) as caught:
        convert_state_dict(source, RULES, target)
    assert isinstance(caught.value, ConversionError)
    assert isinstance(caught.value, KeyError)


def test_ignored_keys_are_templates():
    source, target = source_and_target()
    source["blocks.3.mask"] = torch.zeros(1)
    assert len(convert_state_dict(source, RULES, target, ignored=["blocks.{n}.mask"])) == len(target) - 1


def test_a_target_without_a_rule_is_an_error():
    source, target = source_and_target()
    with pytest.raises(StateDictError, match=r"No rule gives the tensor 'new\.weight'"):
        convert_state_dict(source, RULES, {**target, "new.weight": torch.empty(1)})
