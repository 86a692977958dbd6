"""What is said about how far to trust an assessment's numbers."""

import dataclasses
import math

import pytest

from sorl.agents import Budget
from sorl.assess.fitted_q import FitOptions
from sorl.assess.record import Assessment, AtBudget, Behaviour, DataFacts, PolicyFacts, Value
from sorl.assess.table import text
from sorl.assess.trust import distance_ratio, least_error, notes


VALUE = Value(value=-40.0, value_low=-45.0, value_high=-35.0, everywhere=-42.0, heads=0.5, drift=0.1)
AT = AtBudget(
    budget=Budget(4),
    fitted=dataclasses.replace(VALUE, value=-30.0),
    gain=10.0,
    gain_low=8.0,
    gain_high=12.0,
    own_value=-29.0,
    energy_score=0.2,
    neighbour_distance=(0.1, 0.175),
    outside=(0.0, 0.0),
    jerk=0.5,
)
BEHAVIOUR = Behaviour(-38.0, -44.0, -33.0, 0.0, VALUE, (0.1, 0.15), 0.5)
DATA = DataFacts("own logs", 90, 12, 500, 0.99, "the agent's")
FINISHED = FitOptions(updates=10_000, target_rate=0.05)  # exp(-5) of the first guess is left
GOOD = Assessment(PolicyFacts("Sorl", None, 0, 9, "-"), DATA, FINISHED, BEHAVIOUR, (AT,), (), ())


def said(found: Assessment) -> str:
    return " ".join(notes(found))


def test_a_good_assessment_has_the_error_of_the_fit_and_of_the_intervals_only():
    assert least_error(GOOD) == 2.0 and distance_ratio(GOOD, AT) == pytest.approx(0.275 / 0.25)
    first, second = notes(GOOD)
    assert first.startswith("The fit gives the behaviour -40, and its episodes returned -38:")
    assert "no fitted value is more exact than the difference of 2," in first
    assert second.startswith("Intervals resample the held-out episodes (12)")


@pytest.mark.parametrize(
    "part, changes, words",
    [
        ("fit", {"updates": 2_000}, "about 37% of the first guess are left after 2,000 updates"),
        ("data", {"held_out_episodes": 3}, "So few held-out episodes (3) make the intervals too narrow."),
        ("behaviour", {"beyond": 0.4}, "40% of the returns' weight lies beyond time-outs"),
        ("at", {"neighbour_distance": (0.2, 0.3)}, "At M4N1 actions are 2 times as far from logged actions"),
        ("at", {"outside": (0.0, 0.25)}, "At M4N1 25% of the actions leave the logged range in dimension 1."),
        ("at", {"own_value": -20.0}, "promises up to 10 more than the fitted value (at M4N1)"),
        ("data", {"agents_discount": 0.9}, "have its discount of 0.9 and the fitted ones 0.99, so their differences"),
        ("at", {"own_value": None}, "The policy holds no critic (Sorl acts without one)"),
        ("at", {"fitted": dataclasses.replace(AT.fitted, drift=-5.0)}, "values moved by up to 5 in the last fifth"),
    ],
)
def test_each_fault_is_said(part, changes, words):
    if part == "at":
        found = dataclasses.replace(GOOD, budgets=(dataclasses.replace(AT, **changes),))
    else:
        found = dataclasses.replace(GOOD, **{part: dataclasses.replace(getattr(GOOD, part), **changes)})
    assert words in said(found) and words not in said(GOOD)


def test_the_first_guess_fades_by_the_discount_of_a_decision():
    short = dataclasses.replace(GOOD, fit=dataclasses.replace(FINISHED, updates=2_000))
    assert "first guess" in said(short)
    for changes in ({"chunk": 5}, {"discount": 1.0, "agents_discount": 1.0}):  # exp(-4.9); no discount says nothing
        assert "first guess" not in said(dataclasses.replace(short, data=dataclasses.replace(DATA, **changes)))


def test_logs_whose_actions_never_vary_have_a_distance_too():
    still = dataclasses.replace(GOOD, behaviour=dataclasses.replace(BEHAVIOUR, neighbour_distance=(0.0, 0.0), jerk=0.0))
    assert distance_ratio(still, AT) == math.inf
    assert distance_ratio(still, dataclasses.replace(AT, neighbour_distance=(0.0, 0.0))) == 1.0
    (line,) = [line for line in text(still).splitlines() if line.startswith("M4N1") and "0.200" in line]
    assert line.split()[1:4] == ["0.200", "0.138", "inf"]


def test_an_order_of_budgets_that_is_that_of_their_distances_is_doubted():
    far = dataclasses.replace(AT, budget=Budget(1), neighbour_distance=(0.12, 0.17))
    better, worse = (
        dataclasses.replace(far, fitted=dataclasses.replace(VALUE, value=value)) for value in (-20.0, -35.0)
    )
    assert "The fit ranks M1N1 first" in said(dataclasses.replace(GOOD, budgets=(better, AT)))
    assert "ranks" not in said(dataclasses.replace(GOOD, budgets=(worse, AT)))
