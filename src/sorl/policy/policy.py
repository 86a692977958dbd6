"""The policy: its parts, and how it acts and is changed, saved and loaded."""

import dataclasses
import functools
import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree, Shaped

from sorl.agents import Budget
from sorl.agents.actors import AbstractActor
from sorl.config.json_form import to_json
from sorl.data.normalisation import Normalisation, Standardisation
from sorl.policy import acting, file as _file, latency, planning as _planning
from sorl.policy.deadline import Deadline
from sorl.policy.inputs import checked_observation, refuse_other_keys
from sorl.policy.runner import PolicyRunner, outside_sentence
from sorl.policy.smoothing import Smoothing


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """A trained policy: a function from observations to actions, both in the environment's units.

    It acts at any budget: `policy(observation, key=key, steps=4, candidates=8)`.
    """

    actor: AbstractActor
    """The actor, which defines how the networks act."""
    networks: PyTree = dataclasses.field(repr=False)
    normalisation: Normalisation = dataclasses.field(repr=False)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    """The origin of the policy: environment, seed, step, versions, data, and the settings of its agent."""
    scores: list[dict[str, Any]] = dataclasses.field(default_factory=list, repr=False)
    """The measured scores, one row per budget (see `with_scores`); empty if there are none."""
    budget: Budget = dataclasses.field(default=None)  # pyright: ignore[reportAssignmentType]
    """The budget at which it acts if a call gives none; default: the actor's usual budget."""
    plan: _planning.Plan | None = dataclasses.field(default=None, repr=False)
    """The choice of the budget by `for_latency`; not saved, because it depends on the machine."""

    def __post_init__(self):
        if self.budget is None:
            object.__setattr__(self, "budget", self.actor.budgets.usual)
        self.actor.budgets.refuse(self.budget)

    def __repr__(self) -> str:
        return (
            f"Policy({self.algorithm}, {self.observation_size} observations -> {self.action_size} actions"
            f"{f' for each of {self.chunk} steps' if self.chunk > 1 else ''}, "
            f"acts at {_planning.budget_words(self.budget)} by default)"
        )

    def __getstate__(self) -> dict[str, Any]:
        """The fields, for `pickle` and `copy`; compiled programs are left out and are compiled or looked up again."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def algorithm(self) -> str:
        """The name of the agent that trained it, or, if the provenance lacks it, of the actor."""
        agent = self.provenance.get("agent")
        name = agent.get("type") if isinstance(agent, dict) else None
        return name if isinstance(name, str) else type(self.actor).__name__

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        return self.normalisation.observation_mean.shape[0]

    @property
    def action_size(self) -> int:
        """Length of an action."""
        return self.normalisation.action_low.shape[0]

    @property
    def chunk(self) -> int:
        """Number of actions per decision, to be executed open-loop; 1 for most policies."""
        return self.actor.actions_at_once

    @property
    def digest(self) -> str:
        """SHA-256 of the actor and all arrays, which determine the actions at a budget."""
        digest = hashlib.sha256(json.dumps(to_json(self.actor), sort_keys=True).encode())
        for leaf in jax.tree.leaves((self.networks, self.normalisation)):
            array = np.asarray(leaf)
            digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
        return digest.hexdigest()

    @property
    def device(self) -> latency.Device:
        """The device on which it acts."""
        return self._arrays[0].device  # pyright: ignore[reportReturnType]

    def __call__(
        self,
        observation: Shaped[Array | np.ndarray, "*batch observation"],
        *,
        key: Key[Array, ""] | Any = None,
        steps: int | np.integer | None = None,
        candidates: int | np.integer | None = None,
        noise_scale: float | np.floating | None = None,
        budget: Budget | None = None,
    ) -> Float[np.ndarray, "..."]:
        """Acts on one observation or a batch of them; the first call at a budget and batch size compiles.

        **Arguments:** `key`, the random key of this decision, such as `jax.random.key(0)`; `steps`, the number of jumps
        or integration steps from noise to action; `candidates`, the number of sampled actions (the best by Q is
        taken); `noise_scale`, the temperature (0 is deterministic); `budget`, which gives those of the three that are
        not given (default: the policy's own).

        A policy of own logs clips each number of an observation to the limits that `load_logs` computed
        (`observation_margin`), and warns the first time; `runner` counts them.

        **Returns:** actions [*batch, action] in the environment's units, or, if the policy gives several actions per
        decision (`chunk`), [*batch, chunk, action], to be executed in order, as `runner` does.

        Raises a `ValueError` for an observation with the wrong shape, NaN or infinity, for an invalid key, and for a
        budget that it does not support; a `FloatingPointError` if an action is not finite.
        """
        # Check the inputs, and look up or compile the program of the budget.
        values = self._checked(observation)
        refuse_other_keys(key)
        program = self._program(self.budget if budget is None else budget, steps, candidates, noise_scale)
        # Standardise observations of own logs here, in double precision, then run the program on a flat batch.
        if self._standardisation is not None:
            self._warn_once_of_clipping(self._standardisation, values)
            values = self._standardisation(values)
        actions = np.array(program(self._arrays, values.reshape(-1, self.observation_size), key))
        if not np.isfinite(actions).all():
            raise FloatingPointError("The policy's action is not finite; its weights probably are not either.")
        return actions.reshape(*values.shape[:-1], *actions.shape[1:])

    def outside(self, observation: Shaped[Array | np.ndarray, "*batch observation"]) -> Bool[np.ndarray, "..."]:
        """Which numbers of an observation, or of a batch, are beyond the limits of the logs and will be clipped.

        Only policies of own logs have limits (`load_logs`: `observation_margin`). Raises as `__call__` does.
        """
        values = self._checked(observation)
        if self._standardisation is None:
            return np.zeros(values.shape, np.bool_)
        return self._standardisation.outside(values)

    def with_budget(self, budget: Budget) -> "Policy":
        """The same policy with `budget` as its default; raises a `ValueError` if it does not support it."""
        return dataclasses.replace(self, budget=budget, plan=None)

    def with_scores(self, pairs: Sequence[Mapping[str, Any]]) -> "Policy":
        """The same policy with measured scores, which are saved in its file.

        **Arguments:** `pairs`, a row for each budget: `inference_steps`, `candidates` and the other fields of `Budget`
        that differ from their defaults; `success` in [0, 1] (or None and `return`, if the environment reports no
        success) and `difference`, the paired difference to one step and one candidate, each with `_low` and `_high`,
        the ends of its interval. Further fields are kept.

        Raises a `ValueError` for rows that lack one of these.
        """
        return dataclasses.replace(self, scores=_planning.checked_scores(pairs), plan=None)

    def on(self, device: latency.Device) -> "Policy":
        """The same policy, acting on `device`."""
        networks, normalisation = jax.device_put((self.networks, self.normalisation), device)
        return dataclasses.replace(self, networks=networks, normalisation=normalisation, plan=None)

    def runner(
        self,
        *,
        key: Key[Array, ""] | Any = None,
        smoothing: Smoothing | None = None,
        deadline_ms: float | None = None,
        steps: int | np.integer | None = None,
        candidates: int | np.integer | None = None,
        noise_scale: float | np.floating | None = None,
        budget: Budget | None = None,
    ) -> PolicyRunner:
        """A runner for a control loop: it derives each decision's key from `key`, and counts clipped observations.

        **Arguments:** `key` of the whole loop; `smoothing` of the actions (`Exponential` or `OverlapAveraging`);
        `deadline_ms`, the longest time from an observation to its action; `steps`, `candidates`, `noise_scale` and
        `budget` as for a call of the policy. If there is a deadline, but neither one of these four nor a `plan`,
        `for_latency` chooses the budget. With a deadline, programs are compiled and timed here; without, the first call
        compiles them, unless `prepare` of the runner is called before.

        Raises a `ValueError` for an invalid key, budget or deadline, a decision that takes longer than the deadline,
        and smoothing that does not fit.
        """
        refuse_other_keys(key)
        self._chosen(steps, candidates, noise_scale, budget)  # raises before the loop begins
        asked = {"steps": steps, "candidates": candidates, "noise_scale": noise_scale, "budget": budget}
        given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        if deadline_ms is None:
            return PolicyRunner(self, key, given, smoothing)
        _planning.refuse_limit(deadline_ms)
        policy = self if given or self.plan is not None else self.for_latency(deadline_ms)
        chosen = policy._chosen(steps, candidates, noise_scale, budget)
        (expected,) = policy._latencies([chosen]) if given or policy.plan is None else (policy.plan.milliseconds,)
        if expected > deadline_ms:
            raise ValueError(
                f"A decision at {chosen.name} takes {expected:.3g} ms at the 95th percentile here, beyond the deadline "
                f"of {deadline_ms:g} ms; give fewer steps or candidates, or a later deadline."
            )
        runner = PolicyRunner(policy, key, given, smoothing, Deadline(deadline_ms, expected))
        runner.prepare()
        return runner

    def for_latency(
        self, milliseconds: float, device: latency.Device | None = None, *, measure_again: bool = False
    ) -> "Policy":
        """The same policy at the best budget whose decisions on one observation fit the time limit.

        The latency of each budget is measured once per device, in calls of this policy from numpy to numpy, and kept in
        the user's cache. The best budget is the one with the highest success (or return) among the scores. Without
        scores it is the largest number of steps, trained or usual, that fits, with the number of candidates that is
        part of the method (one for most), or with one candidate if the method's number does not fit at all. `plan` of
        the result holds the choice and its reason.

        **Arguments:** `milliseconds`, the time limit of a decision; `device` to act on (default: the policy's);
        `measure_again`, to ignore the cache.

        Raises a `ValueError` that names the cheapest budget if none fits.
        """
        _planning.refuse_limit(milliseconds)
        policy = self if device is None else self.on(device)
        budgets = _planning.possible_budgets(self.actor, self.budget, self.scores)
        # Choose by the scores, if there are any.
        found = policy._latencies(budgets, measure_again=measure_again)
        scores = self.scores or [None] * len(budgets)
        options = [_planning.Option(*option) for option in zip(budgets, found, scores, strict=True)]
        plan = _planning.choose(options, milliseconds, policy.device.device_kind, self.actor.budgets)
        return dataclasses.replace(policy, budget=plan.budget, plan=plan)

    def _latencies(self, budgets: Sequence[Budget], *, measure_again: bool = False) -> list[float]:
        """Milliseconds of a decision at each budget on this device, measured or read from the cache."""
        names = [json.dumps(to_json(budget)) for budget in budgets]
        observation, key = self.normalisation.standardisation().mean, jax.random.key(0)
        found = latency.costs(
            latency.machine(self.device)
            | {"actor": type(self.actor).__name__, "shapes": [list(array.shape) for array in self._arrays]},
            {
                name: functools.partial(self, observation, key=key, budget=budget)
                for name, budget in zip(names, budgets, strict=True)
            },
            measure_again=measure_again,
        )
        return [found[name] for name in names]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the policy to one file, atomically."""
        content = (self.actor, self.networks, self.normalisation, self.provenance, self.scores, self.budget)
        _file.write(Path(path), _file.Content(*content))

    def _checked(self, observation: Any) -> np.ndarray:
        # Double precision if it is standardised on the host; otherwise the precision of the program.
        kind = np.float32 if self._standardisation is None else np.float64
        return checked_observation(observation, self.observation_size, self.action_size, kind)

    def _warn_once_of_clipping(self, standardisation: Standardisation, values: np.ndarray) -> None:
        outside = standardisation.outside(values)
        if outside.any() and not self._warned:
            self._warned.append(True)
            warnings.warn(outside_sentence(standardisation, outside, values), stacklevel=3)

    # These values are cached, so that a decision costs little more than the call of one compiled program.

    @functools.cached_property
    def _warned(self) -> list[bool]:
        return []

    @functools.cached_property
    def _standardisation(self) -> Standardisation | None:
        """The standardisation of observations before the program; None if the program does it."""
        return self.normalisation.split()[0]

    @functools.cached_property
    def _program_normalisation(self) -> Normalisation:
        return self.normalisation.split()[1]

    @functools.cached_property
    def _arrays(self) -> tuple[Array, ...]:
        return acting.program_arrays(self.networks, self._program_normalisation)

    @functools.cached_property
    def _programs(self) -> dict[tuple[Any, ...], acting.Program]:
        return {}

    def _chosen(self, steps: Any, candidates: Any, noise_scale: Any, budget: Budget | None) -> Budget:
        """The budget that the arguments of a call choose; raises a `ValueError` if the policy does not support it."""
        given = {"inference_steps": steps, "candidates": candidates, "noise_scale": noise_scale}
        plain = {name: _plain(name, x) for name, x in given.items() if x is not None}
        chosen = dataclasses.replace(self.budget if budget is None else budget, **plain)
        self.actor.budgets.refuse(chosen)
        return chosen

    def _program(self, budget: Budget, steps: Any, candidates: Any, noise_scale: Any) -> acting.Program:
        # With the types, because 4, 4.0 and True for 1 are equal, and only whole numbers are allowed.
        kinds = type(steps), type(candidates), type(noise_scale)
        asked = (budget, kinds, *map(_plain, ("steps", "candidates", "noise_scale"), (steps, candidates, noise_scale)))
        if asked not in self._programs:
            budget = self._chosen(steps, candidates, noise_scale, budget)
            structure = jax.tree.structure((self.networks, self._program_normalisation))
            self._programs[asked] = acting.program(self.actor, structure, budget)
        return self._programs[asked]


def _plain(name: str, number: Any) -> Any:
    """A number of NumPy's or JAX's as one of Python's; raises a `ValueError` for an array of several."""
    if not isinstance(number, np.generic | np.ndarray | Array):
        return number
    if number.ndim:
        raise ValueError(f"{name} has shape {list(number.shape)}; give one number.")
    return number.item()


def load_policy(path: str | os.PathLike[str], seed: int | None = None) -> Policy:
    """Loads a policy file, or from a run directory the policy of the training seed `seed` (None: the lowest good seed).

    `path` may also be the name of a pretrained policy, such as `cube-single-quickstart`, which comes with the package;
    others must be fetched before (`python -m sorl.pretrained`).

    Only load files from sources that you trust: the SHA-256 detects damage, not malicious changes.

    A seed is bad if its losses became non-finite; if its number is given, it is loaded with a warning. Raises a
    `FileNotFoundError` if the path does not exist, and otherwise a `ValueError`, one sentence, if it is a directory
    without that policy, or a file that is unreadable, foreign, of another version, truncated or altered.
    """
    return Policy(*_file.read(_file.find_policy(Path(path), seed)))
