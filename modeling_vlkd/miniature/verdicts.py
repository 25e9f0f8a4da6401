"""Say by a rule whether a claim holds, from the scores of several seeds.

Two rows differ clearly if the difference of their means is larger than the pooled standard deviation, and has the same
sign for every seed. Then

- "lower" holds if the row is clearly lower;
- "much lower" holds if it is clearly lower, by `MUCH` or more;
- "about equal" holds if the rows do not differ clearly, or by `LITTLE` or less;
- "not higher" holds unless the row is clearly higher.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .tables import Claim


MUCH, LITTLE = 0.05, 0.02  # differences of shares


@dataclass(frozen=True)
class Comparison:
    """Two rows of scores.

    Args:
        mean, other: of the row, and of the row that it is compared to.
        spread: the pooled standard deviation over seeds.
        clear: whether they differ clearly.
    """

    mean: float
    other: float
    spread: float
    clear: bool

    @property
    def difference(self) -> float:
        return self.mean - self.other


def compare(row: Sequence[float], other: Sequence[float]) -> Comparison:
    """Compare the scores of two rows, one for each seed, in the same order of seeds.

    Raises:
        ValueError: there is one seed, or the rows have different numbers of them.
    """
    if len(row) != len(other) or len(row) < 2:
        raise ValueError(f"Got {len(row)} and {len(other)} scores; a comparison needs two seeds or more of both rows.")
    spread = float(np.sqrt((np.var(row, ddof=1) + np.var(other, ddof=1)) / 2))
    differences = np.subtract(row, other)
    agree = bool((differences > 0).all() or (differences < 0).all())
    mean, base = float(np.mean(row)), float(np.mean(other))
    return Comparison(mean, base, spread, agree and abs(mean - base) > spread)


def holds(claim: Claim, found: Comparison) -> bool:
    """Decide about a claim by the rule of this module."""
    is_lower = found.clear and found.difference < 0
    return {
        "lower": is_lower,
        "much lower": is_lower and found.difference <= -MUCH,
        "about equal": not found.clear or abs(found.difference) <= LITTLE,
        "not higher": not (found.clear and found.difference > 0),
    }[claim.relation]


def judge(claim: Claim, row: Sequence[float], other: Sequence[float]) -> str:
    """Write the sentence about a claim.

    Args:
        row, other: the claim's score, for each seed, of its row and of the row that it is compared to.
    """
    if len(row) < 2:
        return f"{capitalized(claim.says)}: not told by one seed."
    found = compare(row, other)
    figures = f"{found.mean:.3f} against {found.other:.3f}, spread {found.spread:.3f}"
    verdict = "holds here" if holds(claim, found) else f"does not hold here, {why_not(claim, found)}"
    return f"{capitalized(claim.says)}: {verdict} ({figures})."


def why_not(claim: Claim, found: Comparison) -> str:
    """Say what was found instead of a claim that does not hold."""
    if not found.clear:
        return "no clear difference"
    if claim.relation == "much lower" and found.difference < 0:
        return f"it is lower by less than {MUCH}"
    return "it is lower" if found.difference < 0 else "it is higher"


def capitalized(text: str) -> str:
    return text[0].upper() + text[1:]


def judge_row(claims: Sequence[Claim], name: str, scores: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """Write the sentences about the claims of a row.

    Args:
        name: of the row.
        scores: of each row by its name, for each seed.
    """

    def of(row: str, score: str) -> list[float]:
        return [seed[score] for seed in scores[row]]

    return [judge(claim, of(name, claim.score), of(claim.than, claim.score)) for claim in claims]
