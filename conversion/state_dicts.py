"""Renames the tensors of a checkpoint by rules that are data. A missing key is an error, and so is an unknown one.

A rule is a pair of templates, one of a key in the source and one of a key in the target. `{n}` stands for a number,
`{p}` for the name of a parameter or buffer, and `{rest}` for everything that follows; each has the same value in both.
Rules are applied from the target to the source: for each tensor of the new model a rule gives the key in the source.
So a missing tensor can be reported by the name that it should have in the source.
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
    target: template of the target's key. With several templates, the tensor is cut into as many equal parts along its
        first axis (fused query, key and value).
    transpose: the source computes `x @ W`, and the target is a Linear, which computes `x @ W.T`.
    optional: the source may lack the tensor; the target then keeps its initial value. Only for counters that do not
        affect any output.
    """

    source: str
    target: str | tuple[str, ...]
    transpose: bool = False
    optional: bool = False


class Origin(NamedTuple):
    """Where one tensor of the target comes from.

    key: the key in the source.
    part, parts: the tensor is part number `part` (from 0) of `parts` equal parts of the source's tensor.
    rule: the rule that says so.
    """

    key: str
    part: int
    parts: int
    rule: Rule


@cache
def template_pattern(template: str) -> re.Pattern:
    """Turn a template into a regular expression for a whole key: `ln.{n}` into one that matches `ln.3`."""
    pieces = re.split(r"(\{\w+\})", template)  # at each placeholder, such as {n}, which is kept
    return re.compile("".join(PLACEHOLDERS.get(piece) or re.escape(piece) for piece in pieces))


def fill_template(template: str, values: Sequence[str]) -> str:
    """Put `values`, which the other template of the rule matched, in place of the placeholders."""
    remaining = iter(values)
    return re.sub(r"\{\w+\}", lambda _: next(remaining), template)  # each placeholder, such as {n}


def find_origin(target_key: str, rules: Sequence[Rule]) -> Origin:
    """Find the first rule that gives `target_key`, and return where it takes the tensor from."""
    for rule in rules:
        targets = (rule.target,) if isinstance(rule.target, str) else rule.target
        for part, target in enumerate(targets):
            if match := template_pattern(target).fullmatch(target_key):
                return Origin(fill_template(rule.source, match.groups()), part, len(targets), rule)
    raise StateDictError(f"No rule gives the tensor {target_key!r} of the new model.")


def take_tensor(source: Mapping[str, torch.Tensor], origin: Origin, like: torch.Tensor) -> torch.Tensor:
    """Read the tensor of one target, in the target's dtype; raise StateDictError if its shape or a value is wrong."""
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
    """Write up to `limit` keys as one text, and how many more there are."""
    keys = sorted(keys)
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(map(repr, keys[:limit])) + more


def convert_state_dict(
    source: Mapping[str, torch.Tensor],
    rules: Sequence[Rule],
    target: Mapping[str, torch.Tensor],
    ignored: Sequence[str] = (),
) -> dict[str, torch.Tensor]:
    """Rename the tensors of `source` into those of `target`.

    Args:
        source: the checkpoint. Its tensors are read one by one, so a mapping that reads on demand needs little memory.
        rules: where each tensor comes from.
        target: `state_dict()` of the new model, for its names, shapes and dtypes; it may be on the meta device.
        ignored: templates of the source's keys that are known and not needed (buffers, another tower).

    Returns:
        A state dict with exactly the keys of `target`, without optional ones that the source lacks.

    Raises:
        StateDictError: a key of the source is unknown or missing, or its shape is wrong; the message names the key.
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
