"""Measures a policy at several budgets by held-out episodes: values, distances to the data, and critics."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from sorl.agents import Budget
from sorl.assess import distance
from sorl.assess.acting import in_blocks, own_values, sampled_actions
from sorl.assess.critic_sanity import calibrate
from sorl.assess.fitted_q import BEHAVIOUR, FitOptions, Fitted, fit
from sorl.assess.record import Assessment, AtBudget, Behaviour, Calibration, DataFacts, PolicyFacts, Value
from sorl.assess.subject import Subject
from sorl.assess.trajectories import Trajectories, returns_to_go, spread_out
from sorl.assess.trust import notes
from sorl.config.json_form import to_json
from sorl.data.transitions import Dataset, Window
from sorl.policy import Policy
from sorl.statistics.intervals import bootstrap_interval


class States(NamedTuple):
    """Some held-out transitions, with the policy's actions in their states at each budget."""

    numbers: Int[np.ndarray, " states"]
    observations: Float[np.ndarray, "states observation"]
    logged: Float[np.ndarray, "states decision"]
    """The logged decision; of a chunk that the trajectory's end cuts, the last action repeated."""
    whole: Float[np.ndarray, " states"]
    """1 where the logged decision is whole."""
    actions: list[Float[np.ndarray, "states samples decision"]]
    """The policy's decisions, at each budget."""

    @classmethod
    def of(
        cls, subject: Subject, budgets: tuple[Budget, ...], numbers: Int[np.ndarray, " states"], samples: int, seed: int
    ) -> "States":
        """Acts in the states of these transitions."""
        batch = _transitions(subject, subject.held_out, numbers)
        observations, whole = batch.observation, batch.valid
        return cls(
            numbers,
            observations,
            batch.action,
            np.ones(len(numbers)) if whole is None else whole,
            [sampled_actions(subject.policy, observations, each, samples=samples, seed=seed) for each in budgets],
        )

    def of_whole_decisions(self) -> "States":
        """Those whose logged decision is whole, which alone say what was logged."""
        kept = np.flatnonzero(self.whole)
        actions = [each[kept] for each in self.actions]
        return States(self.numbers[kept], self.observations[kept], self.logged[kept], self.whole[kept], actions)

    def of_policy(self, number: int) -> Float[np.ndarray, "states samples decision"]:
        """The decisions of the behaviour (number 0), or of the policy at a budget (from 1 on)."""
        return self.logged[:, None] if number == BEHAVIOUR else self.actions[number - 1]


def assess(
    subject: Subject,
    budgets: tuple[Budget, ...],
    options: FitOptions,
    *,
    states: int = 2_000,
    samples: int = 8,
    advance: Callable[[int], None] = lambda updates: None,
) -> Assessment:
    """Assesses a policy at each budget.

    **Arguments:** `states`, at most how many held-out states judge actions and critics; `samples`, actions drawn in
    each; `advance`, which is called while the critics are fitted, with the number of updates since its last call.

    Raises a `ValueError` if no held-out episode is as long as a decision of the policy, or if no judged state is
    followed by so many actions.
    """
    trajectories = Trajectories.of(subject.held_out)
    longest, chunk = subject.held_out.longest, subject.policy.chunk
    if longest < chunk:
        raise ValueError(
            f"The longest held-out episode has {longest} transitions, and a decision of the policy has {chunk} "
            "actions; give longer episodes."
        )
    seed = options.seed
    first = States.of(subject, budgets, trajectories.first, 4 * samples, seed).of_whole_decisions()
    judged = States.of(subject, budgets, spread_out(len(trajectories.starts), states), samples, seed + 1)
    if not judged.whole.any():
        raise ValueError(
            f"None of the {len(judged.numbers)} judged states is followed by the {chunk} actions of a decision; judge "
            "more states (--states)."
        )
    judged = judged.of_whole_decisions()
    # Fit the critics, and keep the values before the last fifth of the updates.
    earlier: list[Float[np.ndarray, " policies"]] = []

    def watch(done: int, made: int, fitted: Fitted) -> None:
        advance(made)
        if not earlier and done >= 0.8 * options.updates:
            earlier.append(np.array([_values(fitted, first, number).mean() for number in range(1 + len(budgets))]))

    fitted = fit(subject.policy, budgets, subject.data.train, subject.discount, options, watch=watch)
    # Read the results.
    returns, whole = returns_to_go(trajectories, subject.discount), _whole_returns(subject, trajectories, fitted)
    found = [_value(fitted, first, judged, number, earlier[0][number]) for number in range(1 + len(budgets))]
    jerks = [distance.mean_jerk(_sequences(subject, trajectories, each, states, seed)) for each in (None, *budgets)]
    near = _near_actions(subject, judged)
    behaviour = _behaviour(
        whole[first.numbers], returns.beyond[first.numbers], found[BEHAVIOUR], judged, near, jerks[0], chunk
    )
    at_budgets = tuple(
        _at_budget(subject, fitted, first, judged, near, number, budget, found[number], jerks[number])
        for number, budget in enumerate(budgets, start=1)
    )
    calibrations = _calibrations(subject, budgets, fitted, judged, whole)
    # What is said about trust follows from the numbers.
    facts = _data_facts(subject, first, judged)
    result = Assessment(_facts(subject.policy), facts, options, behaviour, at_budgets, calibrations, ())
    return dataclasses.replace(result, notes=tuple(notes(result)))


def _transitions(subject: Subject, dataset: Dataset, numbers: Int[np.ndarray, " chosen"]) -> Any:
    """The `Transition`s of these numbers, of the length of a decision, as numpy arrays."""
    window = Window(chunk=subject.policy.chunk)
    return in_blocks(lambda block: _taken(dataset, block, window, subject.discount), numbers.astype(np.int32))


_taken = jax.jit(Dataset.take, static_argnums=2)


def _values(fitted: Fitted, states: States, number: int) -> Float[np.ndarray, " states"]:
    """The fitted value of each state, averaged over heads."""
    return fitted.values(number, states.observations, states.of_policy(number)).mean(axis=1)


def _value(fitted: Fitted, first: States, judged: States, number: int, earlier: float) -> Value:
    by_head = fitted.values(number, first.observations, first.of_policy(number))
    mean = float(by_head.mean())
    low, high = bootstrap_interval(by_head.mean(axis=1))
    everywhere = float(_values(fitted, judged, number).mean())
    return Value(mean, low, high, everywhere, float(by_head.mean(axis=0).std()), mean - float(earlier))


def _whole_returns(subject: Subject, trajectories: Trajectories, fitted: Fitted) -> Float[np.ndarray, " transitions"]:
    """The returns from each held-out transition; beyond a time-out they count the behaviour's fitted value."""
    after = _transitions(subject, subject.held_out, trajectories.last)
    values = fitted.values(BEHAVIOUR, after.next_observation, after.next_action[:, None]).mean(axis=1)
    return returns_to_go(trajectories, subject.discount).filled(values[trajectories.owner])


def _near_actions(subject: Subject, judged: States) -> Float[np.ndarray, "states neighbours decision"]:
    """The logged decisions in the training states nearest to each judged state."""
    train = subject.data.train
    batch = _transitions(subject, train, spread_out(len(train), distance.MOST_LOGGED))
    whole = np.arange(len(batch.action)) if batch.valid is None else np.flatnonzero(batch.valid)
    if not len(whole):
        raise ValueError(
            f"No training episode is as long as the {subject.policy.chunk} actions of a decision; give longer episodes."
        )
    return batch.action[whole][distance.near_states(judged.observations, batch.observation[whole])]


def _behaviour(
    returned: Float[np.ndarray, " episodes"],
    beyond: Float[np.ndarray, " episodes"],
    fitted: Value,
    judged: States,
    near: Float[np.ndarray, "states neighbours decision"],
    jerk: float,
    chunk: int,
) -> Behaviour:
    low, high = bootstrap_interval(returned)
    distances = distance.per_action(distance.neighbour_distance(judged.logged[:, None], near), chunk)
    return Behaviour(float(returned.mean()), low, high, float(beyond.mean()), fitted, distances, jerk)


def _at_budget(
    subject: Subject,
    fitted: Fitted,
    first: States,
    judged: States,
    near: Float[np.ndarray, "states neighbours decision"],
    number: int,
    budget: Budget,
    value: Value,
    jerk: float,
) -> AtBudget:
    gains = _values(fitted, first, number) - _values(fitted, first, BEHAVIOUR)
    low, high = bootstrap_interval(gains)
    own = own_values(subject.policy, first.observations, first.of_policy(number), budget)
    actions, chunk = judged.of_policy(number), subject.policy.chunk
    logged = np.asarray(subject.data.train.actions)
    single = actions.reshape(len(actions), -1, subject.policy.action_size)
    return AtBudget(
        budget=budget,
        fitted=value,
        gain=float(gains.mean()),
        gain_low=low,
        gain_high=high,
        own_value=None if own is None else float(own.mean()),
        energy_score=distance.mean_energy_score(actions, judged.logged),
        neighbour_distance=distance.per_action(distance.neighbour_distance(actions, near), chunk),
        outside=tuple(map(float, distance.share_outside(single, logged))),
        jerk=jerk,
    )


def _sequences(
    subject: Subject, trajectories: Trajectories, budget: Budget | None, most: int, seed: int
) -> list[Float[np.ndarray, "_ action"]]:
    """The actions along held-out trajectories, of the policy or (None) as logged, for at most `most` steps in all.

    A policy that gives several actions at once decides at every so many states, and they are executed in order.
    """
    size, chunk, found = subject.policy.action_size, subject.policy.chunk, []
    for first, last in zip(trajectories.first, trajectories.last, strict=True):
        length = min(int(last - first) + 1, most)
        if length < 4:
            continue
        most -= length
        batch = _transitions(subject, subject.held_out, first + np.arange(0, length, chunk))
        actions = batch.action
        if budget is not None:
            actions = sampled_actions(subject.policy, batch.observation, budget, samples=1, seed=seed + 2)
        found.append(actions.reshape(-1, size)[:length])
    return found or [np.zeros((0, size), np.float32)]


def _calibrations(
    subject: Subject,
    budgets: tuple[Budget, ...],
    fitted: Fitted,
    judged: States,
    returned: Float[np.ndarray, " transitions"],
) -> tuple[Calibration, ...]:
    """Every critic's values of the logged decisions against the returns that followed them."""
    observations, logged = judged.observations, judged.logged[:, None]
    returns = returned[judged.numbers]
    found = []
    for number, name in enumerate(["the behaviour", *(budget.name for budget in budgets)]):
        found.append(calibrate(f"fitted, {name}", fitted.values(number, observations, logged), returns))
    for budget in budgets:
        own = own_values(subject.policy, observations, logged, budget)
        if own is not None:
            found.append(calibrate(f"own, {budget.name}", own, returns))
    return tuple(found)


def _data_facts(subject: Subject, first: States, judged: States) -> DataFacts:
    source, episodes = (subject.data.provenance.get(name) for name in ("source", "episodes"))
    return DataFacts(
        source=str(source or "unrecorded"),
        episodes=int(episodes or len(Trajectories.of(subject.data.train).first)),
        held_out_episodes=len(first.numbers),
        held_out_states=len(judged.numbers),
        discount=subject.discount,
        discount_from=subject.discount_from,
        agents_discount=subject.agents_discount,
        caution=subject.caution,
        chunk=subject.policy.chunk,
    )


def _facts(policy: Policy) -> PolicyFacts:
    known = to_json(policy.provenance)
    names = "seed", "step", "member"
    seed, step, member = (known.get(name) if isinstance(known.get(name), int) else None for name in names)
    env = known.get("env")
    return PolicyFacts(policy.algorithm, env if isinstance(env, str) else None, seed, step, policy.digest, member)
