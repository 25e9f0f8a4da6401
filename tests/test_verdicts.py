"""Verdicts on made-up figures, whose differences and spreads are known on paper."""

import pytest

from modeling_vlkd.miniature.tables import TABLES, VARIANTS, Claim
from modeling_vlkd.miniature.verdicts import LITTLE, MUCH, compare, holds, judge, judge_row


HIGH, LOW = [0.80, 0.82, 0.84], [0.60, 0.62, 0.64]  # each with a standard deviation of .02
NEAR = [0.83, 0.81, 0.82]  # as HIGH, in another order of seeds


def claim(relation: str) -> Claim:
    return Claim("without it, captions are worse", "caption", relation)


def test_spread_is_pooled_over_both_rows():
    found = compare([0.0, 0.6], [0.0, 0.8])  # variances .18 and .32
    assert found.spread == pytest.approx(0.5)
    assert found.difference == pytest.approx(-0.1)


def test_a_difference_within_the_spread_is_not_clear():
    assert compare(LOW, HIGH).clear
    assert not compare([0.50, 0.70], [0.51, 0.71]).clear  # .01 for each seed, with a spread of .14


def test_a_difference_that_seeds_disagree_about_is_not_clear():
    # The means differ by .21 and the spread is .17, but the second seed says the opposite.
    assert not compare([0.5, 0.5, 0.5], [0.9, 0.4, 0.83]).clear
    assert compare([0.5, 0.5, 0.5], [0.9, 0.51, 0.83]).clear


@pytest.mark.parametrize(
    ("relation", "row", "other", "expected"),
    [
        ("lower", LOW, HIGH, True),
        ("lower", HIGH, LOW, False),
        ("lower", NEAR, HIGH, False),
        ("much lower", LOW, HIGH, True),
        ("much lower", HIGH, LOW, False),
        ("much lower", [value - 0.03 for value in HIGH], HIGH, False),  # clear, but small
        ("about equal", NEAR, HIGH, True),
        ("about equal", LOW, HIGH, False),
        ("about equal", HIGH, LOW, False),
        ("about equal", [0.99, 0.99], [1.0, 1.0], True),  # clear, but tiny
        ("not higher", LOW, HIGH, True),
        ("not higher", NEAR, HIGH, True),
        ("not higher", HIGH, LOW, False),
    ],
)
def test_claims_hold_or_not(relation, row, other, expected):
    assert holds(claim(relation), compare(row, other)) is expected


def test_limits_belong_to_the_claim():
    assert holds(claim("much lower"), compare([0.5, 0.5], [0.5 + MUCH, 0.5 + MUCH]))
    assert holds(claim("about equal"), compare([0.0, 0.0], [LITTLE, LITTLE]))


def test_sentences_have_the_figures_and_say_what_was_found_instead():
    said = "Without it, captions are worse: "
    assert judge(claim("lower"), LOW, HIGH) == f"{said}holds here (0.620 against 0.820, spread 0.020)."
    assert judge(claim("lower"), HIGH, LOW).startswith(f"{said}does not hold here, it is higher (")
    assert judge(claim("lower"), NEAR, HIGH).startswith(f"{said}does not hold here, no clear difference (")
    assert "it is lower by less than 0.05" in judge(claim("much lower"), [value - 0.03 for value in HIGH], HIGH)
    assert judge(claim("lower"), LOW[:1], HIGH[:1]) == f"{said}not told by one seed."


def test_rows_of_different_seeds_are_not_compared():
    with pytest.raises(ValueError, match="Got 3 and 2 scores"):
        compare(HIGH, LOW[:2])


def test_a_row_is_judged_by_its_own_score_and_against_the_row_that_the_claim_names():
    claims = (Claim("a", "caption", "lower", than="other"), Claim("b", "overall", "lower"))
    scores = {
        "row": [{"caption": low, "overall": high} for low, high in zip(LOW, HIGH)],
        "other": [{"caption": value, "overall": 0.0} for value in HIGH],
        "full": [{"caption": 0.0, "overall": value} for value in NEAR],
    }
    first, second = judge_row(claims, "row", scores)
    assert first.startswith("A: holds here (0.620 against 0.820")
    assert second.startswith("B: does not hold here, no clear difference (0.820 against 0.820")


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_claims_are_about_rows_of_their_table(table):
    names = [row.name for row in table.rows]
    assert len(set(names)) == len(names)
    assert names[0] == "full"
    assert not table.rows[0].claims
    assert {each.than for row in table.rows for each in row.claims} <= set(names)
    assert {each.score for row in table.rows for each in row.claims} <= {"overall", "caption"}
    assert set(table.variants) <= set(VARIANTS)
