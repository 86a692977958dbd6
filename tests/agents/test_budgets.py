"""Budgets: grids of them, and what an agent's own are."""

import pytest

from sorl.agents import Budget, Budgets, Fql, Ifql, Sorl


OWN = Budgets(
    usual=Budget(2, 4, noise_scale=0.5),
    inference_steps=(1, 2),
    candidates=(1, 4),
    trained_steps=(1, 2),
    other_inference_steps=False,
    other_candidates=True,
)


def _pairs(budgets):
    return [(budget.inference_steps, budget.candidates) for budget in budgets]


def test_a_grid_has_every_pair_with_the_usual_noise():
    assert _pairs(OWN.grid(None, None, final=False)) == [(2, 4), (1, 4)]  # the usual number first
    assert _pairs(OWN.grid(None, None, final=True)) == [(1, 1), (2, 1), (1, 4), (2, 4)]
    chosen = OWN.grid((2,), (3, 5), final=True)
    assert _pairs(chosen) == [(2, 3), (2, 5)]
    assert all(budget.noise_scale == 0.5 for budget in chosen)


def test_what_an_agent_cannot_act_on_is_refused():
    with pytest.raises(ValueError, match="cannot act with 8 inference steps; give 1 or 2"):
        OWN.grid((1, 8), None, final=False)
    with pytest.raises(ValueError, match="cannot act with 4 inference steps; give 1"):
        Fql().actor.budgets.refuse(Budget(4))
    OWN.refuse(Budget(1, 100))
    with pytest.raises(ValueError, match="The numbers of candidates are 1 4 1; give each once"):
        OWN.grid((1, 2), (1, 4, 1), final=True)
    for steps, candidates, name in (((), None, "inference steps"), (None, (), "candidates")):
        with pytest.raises(ValueError, match=f"No number of {name} is given; give at least one"):
            OWN.grid(steps, candidates, final=True)


def test_the_agents_own():
    assert _pairs(Sorl().actor.budgets.grid(None, None, final=False)) == [(4, 1), (1, 1), (2, 1), (8, 1)]
    assert _pairs(Fql().actor.budgets.grid(None, None, final=True)) == [(1, 1), (1, 8)]
    assert _pairs(Ifql(flow_steps=5, candidates=16).actor.budgets.grid(None, None, final=False)) == [(5, 16)]
    assert _pairs(Ifql(candidates=1).actor.budgets.grid(None, None, final=True)) == [(10, 1), (10, 8)]


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("inference_steps", 2.0, "inference_steps is 2.0; give a whole number"),
        ("candidates", True, "candidates is True; give a whole number"),
        ("critic_conditioning", "2", "critic_conditioning is '2'; give a whole number"),
        ("noise_scale", "low", "noise_scale is 'low'; give a number"),
    ],
)
def test_numbers_of_other_types_are_refused(name, value, message):
    """2.0 equals 2, so the two would share one compiled program. (The tests' type checks would refuse it earlier.)"""
    budget = Budget()
    object.__setattr__(budget, name, value)
    with pytest.raises(ValueError, match=message):
        budget.__check_init__()
