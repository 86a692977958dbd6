"""Which budget is chosen for a time limit, from the latencies and the scores of several."""

import pytest
from hypothesis import given, settings, strategies as st

from sorl import Budget
from sorl.agents import Bc, Fql, Idql, Sorl, SorlPlus
from sorl.policy.planning import Option, checked_scores, choose, possible_budgets

from .. import synthetic


def _option(steps, candidates, milliseconds, success=None, difference=0.1):
    score = None if success is None else synthetic.score(steps, candidates, success, difference)
    return Option(Budget(steps, candidates), milliseconds, score)


OWN = Sorl().actor.budgets
GRID = [
    _option(1, 1, 0.2, success=0.30, difference=0.0),
    _option(1, 8, 0.5, success=0.10, difference=-0.20),
    _option(4, 1, 1.0, success=0.74, difference=0.44),
    _option(4, 8, 3.0, success=0.50, difference=0.20),
    _option(8, 8, 6.0, success=0.80, difference=0.50),
]


@pytest.mark.parametrize(
    "limit, name",
    [(0.25, "M1N1"), (1.19, "M1N1"), (1.21, "M4N1"), (4.0, "M4N1"), (7.1, "M4N1"), (7.3, "M8N8"), (1000.0, "M8N8")],
)
def test_the_best_score_that_fits_with_a_margin_of_a_fifth(limit, name):
    plan = choose(GRID, limit, "a chip", OWN)
    assert plan.budget.name == name
    assert plan.options == tuple(GRID) and plan.limit == limit and plan.device == "a chip"


def test_the_sentence_says_what_was_chosen_and_why():
    plan = choose(GRID, 5.0, "a chip", OWN)
    assert str(plan) == (
        "M4N1 (4 steps, one candidate): 1 ms at the 95th percentile on a chip, within 5 ms with a margin of 1.2; of 5 "
        "budgets 4 fit, and this is the best with success 0.74 (0.64 .. 0.84), 1 passed over that did worse than one "
        "step and one candidate."
    )


def _returned(option, value):
    """An option whose environment reports no success."""
    names = ("success", "success_low", "success_high")
    ends = {"return": value, "return_low": value - 5, "return_high": value + 5}
    return option._replace(score=dict(option.score) | dict.fromkeys(names) | ends)


def test_without_success_the_return_decides():
    plan = choose([_returned(GRID[0], -90.0), _returned(GRID[2], -120.0)], 5.0, "a chip", OWN)
    assert plan.budget == Budget(1, 1)
    assert plan.reason.endswith("this is the best with return -90 (-95 .. -85).")


def test_scores_with_and_without_success_do_not_go_together():
    judged, returned = (dict(option.score or {}) for option in (GRID[0], _returned(GRID[2], -120.0)))
    assert checked_scores([returned]) == [returned]
    with pytest.raises(ValueError, match="Some scores have a success and others only a return"):
        checked_scores([judged, returned])
    with pytest.raises(ValueError, match="needs numbers for return_low; correct it"):
        checked_scores([returned | {"return_low": None}])


def test_nothing_fits_names_the_cheapest_and_what_would_be_enough():
    with pytest.raises(ValueError) as caught:
        choose([_option(4, 1, 3.0), _option(2, 8, 1.0361)], 1.0, "a chip", OWN)
    assert str(caught.value) == (
        "Nothing fits 1 ms on a chip: the cheapest of 2 budgets, M2N8 (2 steps, best of 8), takes 1.04 ms at the "
        "95th percentile; allow at least 1.25 ms."
    )
    assert choose([_option(2, 8, 1.0361)], 1.25, "a chip", OWN).budget.name == "M2N8"


def test_a_pair_that_hurts_is_passed_over_even_with_the_best_score():
    options = [_option(1, 1, 1.0, success=0.3, difference=0.0), _option(1, 8, 2.0, success=0.4, difference=-0.1)]
    assert choose(options, 100.0, "a chip", OWN).budget.name == "M1N1"


def test_a_pair_that_hurts_is_taken_only_where_no_other_fits_and_that_is_said():
    options = [_option(1, 8, 1.0, success=0.1, difference=-0.2), _option(4, 1, 50.0, success=0.7)]
    plan = choose(options, 2.0, "a chip", OWN)
    assert plan.budget.name == "M1N8"
    assert "although one step and one candidate did better" in plan.reason


def test_of_equal_scores_the_cheapest():
    options = [_option(8, 1, 3.0, success=0.5), _option(2, 1, 1.0, success=0.5), _option(4, 1, 2.0, success=0.5)]
    assert choose(options, 100.0, "a chip", OWN).budget.name == "M2N1"


def test_without_scores_the_most_steps_with_one_candidate_and_why():
    options = [_option(1, 1, 0.1), _option(2, 1, 0.3), _option(4, 1, 0.7), _option(8, 1, 3.0)]
    plan = choose(options, 2.0, "a chip", OWN)
    assert plan.budget.name == "M4N1"
    assert plan.reason.endswith(
        "of 4 budgets 3 fit, and this is the largest trained number of steps, with one candidate, because best of N "
        "lowered success on cube-single with the default settings and this policy carries no scores."
    )


@pytest.mark.parametrize(
    "agent, number", [(Bc(), "only"), (Fql(), "usual"), (SorlPlus(renoise=3), "usual"), (Idql(candidates=1), "usual")]
)
def test_the_reason_for_sorls_one_candidate_is_not_given_for_others(agent, number):
    plan = choose([_option(1, 1, 0.1)], 2.0, "a chip", agent.actor.budgets)
    assert plan.reason.endswith(
        f"this is the most steps that fit, with one candidate, its {number} number (this policy carries no scores)."
    )


def test_a_method_that_is_best_of_n_keeps_its_n_where_it_fits():
    options = [_option(1, 1, 0.3), _option(1, 32, 1.0), _option(5, 1, 0.5), _option(5, 32, 2.0)]
    alone = choose(options, 1.0, "a chip", OWN)
    assert alone.budget.name == "M5N1"
    assert alone.reason.endswith("so few candidates, because none with the 32 of its method fits.")
    # Fewer steps before fewer candidates.
    assert choose(options, 2.0, "a chip", OWN).budget.name == "M1N32"
    plan = choose(options, 4.0, "a chip", OWN)
    assert plan.budget.name == "M5N32"
    assert plan.reason.endswith(
        "this is the most steps that fit with the 32 candidates of its method (this policy carries no scores)."
    )


def _score(option):
    assert option.score is not None
    return option.score


costs = st.floats(0.01, 100.0)
shares = st.integers(0, 20).map(lambda count: count / 20)


@settings(deadline=None)
@given(
    st.dictionaries(st.tuples(st.integers(1, 16), st.integers(1, 32)), st.tuples(costs, shares, shares), min_size=1),
    st.floats(0.01, 200.0),
)
def test_no_other_fitting_pair_is_better(grid, limit):
    """Whatever costs and scores are: the choice fits, and a pair that fits and does not hurt has no higher success."""
    options = [
        _option(steps, candidates, milliseconds, success, difference=success - reference)
        for (steps, candidates), (milliseconds, success, reference) in grid.items()
    ]
    fitting = [option for option in options if option.milliseconds * 1.2 <= limit]
    if not fitting:
        with pytest.raises(ValueError, match="Nothing fits"):
            choose(options, limit, "a chip", OWN)
        return
    plan = choose(options, limit, "a chip", OWN)
    (chosen,) = [option for option in fitting if option.budget == plan.budget]
    assert plan.milliseconds == chosen.milliseconds
    harmless = [option for option in fitting if _score(option)["difference"] >= 0]
    if harmless:
        assert _score(chosen)["difference"] >= 0
    rivals = harmless or fitting
    best = max(_score(option)["success"] for option in rivals)
    assert _score(chosen)["success"] == best
    assert chosen.milliseconds == min(o.milliseconds for o in rivals if _score(o)["success"] == best)


def test_possible_budgets_are_those_of_the_scores_or_the_trained_steps():
    agent = synthetic.agent(discretization_steps=4)
    rows = [synthetic.score(3, 5), synthetic.score(4, 8) | {"noise_scale": 0.5, "critic_conditioning": 1}]
    assert possible_budgets(agent.actor, Budget(), rows) == [
        Budget(3, 5),
        Budget(4, 8, noise_scale=0.5, critic_conditioning=1),
    ]
    usual = possible_budgets(agent.actor, Budget(2, 8, noise_scale=0.0), [])
    assert usual == [Budget(m, 1, noise_scale=0.0) for m in (1, 2, 4)]
    assert possible_budgets(synthetic.tiny(Idql).actor, Budget(), []) == [Budget(2, 1), Budget(2, 3)]
    assert possible_budgets(synthetic.tiny(Bc).actor, Budget(1), []) == [Budget(1, 1)]


def test_the_usual_number_of_steps_is_possible_even_if_it_was_not_trained():
    fixed = SorlPlus(discretization_steps=4, backprop_steps=4, backup_inference_steps=3).actor
    assert possible_budgets(fixed, Budget(), []) == [Budget(m, 1) for m in (1, 2, 3, 4)]
    one = SorlPlus(renoise=3, backup_inference_steps=1, backup_candidates=2).actor
    assert possible_budgets(one, Budget(), []) == [Budget(m, n) for m in (1, 3) for n in (1, 2)]
