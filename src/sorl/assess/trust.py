"""How far each number of an assessment can be trusted, and what was left out: sentences."""

import math
from collections.abc import Iterator

from sorl.assess.record import Assessment, AtBudget


UNFINISHED = 0.02
"""The share of the first guess that may be left in the values of a finished fit."""
FEW_EPISODES = 10
FAR = 1.2
"""A policy is off the data if its actions are more than this many times as far from logged actions as held-out logged
actions are."""
BEYOND = 0.1
"""If more than this weight lies beyond time-outs, returns are no independent check of the fit."""


def notes(found: Assessment) -> list[str]:
    """The sentences of an assessment, in the order of its sections."""
    return [
        *filter(None, [found.data.caution]),
        *_of_the_estimator(found),
        *_of_the_intervals(found),
        *(sentence for one in found.budgets for sentence in _of_a_budget(found, one)),
        *_of_the_order(found),
        *_of_own_values(found),
    ]


def least_error(found: Assessment) -> float:
    """The known error of the fit: its value of the behaviour against the returns of the same episodes."""
    return abs(found.behaviour.fitted.value - found.behaviour.returned)


def distance_ratio(found: Assessment, one: AtBudget) -> float:
    """The policy's distance to logged actions in near states, as a multiple of that of held-out logged actions."""
    own, logged = sum(one.neighbour_distance), sum(found.behaviour.neighbour_distance)
    return own / logged if logged > 0 else (1.0 if own == 0 else math.inf)


def _of_the_estimator(found: Assessment) -> Iterator[str]:
    behaviour = found.behaviour
    yield (
        f"The fit gives the behaviour {behaviour.fitted.value:.4g}, and its episodes returned "
        f"{behaviour.returned:.4g}: no fitted value is more exact than the difference of {least_error(found):.2g}, and "
        "smaller differences between budgets mean nothing."
    )
    if behaviour.beyond > BEYOND:
        yield (
            f"{behaviour.beyond:.0%} of the returns' weight lies beyond time-outs, where the fitted value stands in "
            "for rewards that nobody logged, so that comparison shows less than it seems."
        )
    # An error of the targets shrinks by the discount of a decision; without discounting, only ends bound it.
    discount = found.data.discount**found.data.chunk
    left = math.exp(-(1 - discount) * found.fit.target_rate * found.fit.updates) if discount < 1 else 0.0
    largest = max(abs(one.fitted.drift) for one in found.budgets)
    gains = max(abs(one.gain) for one in found.budgets)
    if left > UNFINISHED or largest > max(0.1 * gains, least_error(found)):
        guess = f"at a discount of {discount:g} a decision about {left:.0%} of the first guess are left after"
        yield (
            f"The fit may not be finished: {guess if discount < 1 else 'after'} {found.fit.updates:,} updates, and "
            f"values moved by up to {largest:.2g} in the last fifth; raise --fit.updates."
        )


def _of_the_intervals(found: Assessment) -> Iterator[str]:
    heads, episodes = max(one.fitted.heads for one in found.budgets), found.data.held_out_episodes
    yield (
        f"Intervals resample the held-out episodes ({episodes}): they hold the variation of first states, not the "
        f"error of the fit; critic heads, which differ in their first weights only, deviate by {heads:.2g}."
    )
    if episodes < FEW_EPISODES:
        yield f"So few held-out episodes ({episodes}) make the intervals too narrow."


def _of_a_budget(found: Assessment, one: AtBudget) -> Iterator[str]:
    ratio, name = distance_ratio(found, one), one.budget.name
    if ratio > FAR:
        yield (
            f"At {name} actions are {ratio:.2g} times as far from logged actions in near states as held-out logged "
            "actions are: the data hold little about them, and the fitted value there is extrapolation."
        )
    if max(one.outside) > 0.01:
        worst = one.outside.index(max(one.outside))
        yield f"At {name} {max(one.outside):.0%} of the actions leave the logged range in dimension {worst}."


def _of_the_order(found: Assessment) -> Iterator[str]:
    best = max(found.budgets, key=lambda one: one.fitted.value)
    ratios = [distance_ratio(found, one) for one in found.budgets]
    if len(ratios) > 1 and distance_ratio(found, best) == max(ratios) > min(ratios):
        yield (
            f"The fit ranks {best.budget.name} first, whose actions are the farthest from the logged ones: on "
            "cube-single, where this was tested, such an order was wrong each time; trust the distances more."
        )


def _of_own_values(found: Assessment) -> Iterator[str]:
    over = {one.budget.name: one.over_estimation for one in found.budgets if one.over_estimation is not None}
    if not over:
        yield (
            f"The policy holds no critic ({found.policy.algorithm} acts without one), so its own values, their "
            "over-estimation and their calibration are left out."
        )
        return
    if found.data.agents_discount not in (None, found.data.discount):
        yield (
            f"The agent's own values have its discount of {found.data.agents_discount:g} and the fitted ones "
            f"{found.data.discount:g}, so their differences say nothing about over-estimation."
        )
        return
    name, worst = max(over.items(), key=lambda item: item[1])
    if worst > least_error(found):
        yield (
            f"The agent's own critic promises up to {worst:.3g} more than the fitted value (at {name}): it "
            "over-estimates what the policy reaches, or the fit under-estimates it."
        )
