"""Renames the tensors of a checkpoint by rules that are data, strict in both directions.

A rule is a pair of templates. `{n}` stands for a number, `{p}` for the name of a parameter or buffer and `{rest}` for
everything that follows, the same in both. Rules are read from the target's side: each tensor of the new model asks its
rule for the key of the source, so that a missing key is reported by the name that the source would have given it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import torch

from .errors import StateDictError


REMEDY = "give the checkpoint of this architecture, or download it again"
PLACEHOLDERS = {"{n}": r"(\d+)", "{p}": r"(\w+)", "{rest}": r"(.+)"}


class Rule(NamedTuple):
    """Where a tensor of the source goes.

    source: template of the source's key.
    target: template of the target's key; several mean that the tensor is cut into as many equal parts along its first
        axis (fused query, key and value).
    transpose: the source multiplies from the left, `x @ W`, and the target is a Linear.
    optional: the source may lack it; the target then keeps its initial value. Only for counters that no output reads.
    """

    source: str
    target: str | tuple[str, ...]
    transpose: bool = False
    optional: bool = False


class Origin(NamedTuple):
    """A rule applied to one target: which source key, and which of how many parts of it."""

    key: str
    part: int
    parts: int
    rule: Rule


@cache
def template_pattern(template: str) -> re.Pattern:
    """Turns a template into the regular expression that a whole key has to match."""
    pieces = re.split(r"(\{\w+\})", template)
    return re.compile("".join(PLACEHOLDERS.get(piece) or re.escape(piece) for piece in pieces))


def fill_template(template: str, values: Sequence[str]) -> str:
    """Puts the values that one template matched into the other."""
    remaining = iter(values)
    return re.sub(r"\{\w+\}", lambda _: next(remaining), template)


def find_origin(target_key: str, rules: Sequence[Rule]) -> Origin:
    """Returns the source key of `target_key` by the first rule that gives it."""
    for rule in rules:
        targets = (rule.target,) if isinstance(rule.target, str) else rule.target
        for part, target in enumerate(targets):
            if match := template_pattern(target).fullmatch(target_key):
                return Origin(fill_template(rule.source, match.groups()), part, len(targets), rule)
    raise StateDictError(f"No rule gives the tensor {target_key!r} of the new model.")


def take_tensor(source: Mapping[str, torch.Tensor], origin: Origin, like: torch.Tensor) -> torch.Tensor:
    """Reads one target's tensor in the target's dtype; raises StateDictError if its shape or a value is wrong."""
    tensor = source[origin.key]
    shape = tuple(tensor.shape)
    if tensor.layout != torch.strided or tensor.is_floating_point() != like.is_floating_point():
        raise StateDictError(
            f"{origin.key!r} is a {tensor.layout} tensor of {tensor.dtype}, but the architecture wants {like.dtype}; "
            f"{REMEDY}."
        )
    if origin.rule.transpose and tensor.ndim == 2:
        tensor = tensor.T
    if origin.parts > 1:
        if not shape or shape[0] % origin.parts:
            raise StateDictError(
                f"{origin.key!r} of shape {shape} cannot be cut into {origin.parts} equal parts; {REMEDY}."
            )
        tensor = tensor.chunk(origin.parts)[origin.part]
    if like.ndim == 0 and tensor.numel() == 1:
        tensor = tensor.reshape(())  # some sources store scalars as vectors of one
    if tensor.shape != like.shape:
        expected = list(like.shape[::-1] if origin.rule.transpose else like.shape)
        if origin.parts > 1:
            expected[0] *= origin.parts
        raise StateDictError(
            f"{origin.key!r} has shape {shape}, but the architecture wants {tuple(expected)}; {REMEDY}."
        )
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise StateDictError(f"{origin.key!r} holds values that are not finite; download it again.")
    return tensor.to(like.dtype, copy=True).contiguous()


def list_keys(keys: Iterator[str] | Sequence[str], limit: int = 5) -> str:
    """Names up to `limit` keys, then how many more there are."""
    keys = sorted(keys)
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(map(repr, keys[:limit])) + more


def convert_state_dict(
    source: Mapping[str, torch.Tensor],
    rules: Sequence[Rule],
    target: Mapping[str, torch.Tensor],
    ignored: Sequence[str] = (),
) -> dict[str, torch.Tensor]:
    """Renames the tensors of `source` into those of `target`.

    Args:
        source: the checkpoint; a mapping that reads each tensor on demand keeps the memory low.
        rules: where each tensor comes from.
        target: `state_dict()` of the new model, on the meta device if you like: names, shapes and dtypes are read.
        ignored: templates of source keys that are known and not needed (buffers, another tower).

    Returns:
        A state dict with exactly the keys of `target`, except optional ones that the source lacks.

    Raises:
        StateDictError: a key of the source is unknown, missing or misshapen; the message names it.
    """
    origins = {key: find_origin(key, rules) for key in target}
    wanted = {origin.key: origin for origin in origins.values()}
    missing = [key for key, origin in wanted.items() if key not in source and not origin.rule.optional]
    patterns = [template_pattern(template) for template in ignored]
    unknown = [key for key in source if key not in wanted and not any(p.fullmatch(key) for p in patterns)]
    problems = []
    if missing:
        problems.append(f"missing {list_keys(missing)}")
    if unknown:
        problems.append(f"unknown {list_keys(unknown)}")
    if problems:
        raise StateDictError(f"The checkpoint does not fit the architecture: {'; '.join(problems)}; {REMEDY}.")
    return {key: take_tensor(source, origins[key], like) for key, like in target.items() if origins[key].key in source}
