"""The policy itself: what it is made of, how it acts, and how it is changed, saved and loaded."""

import dataclasses
import functools
import hashlib
import json
import math
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
from sorl.policy.inputs import checked_observation, refuse_other_keys
from sorl.policy.runner import PolicyRunner, outside_sentence


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """A trained policy: observations in, actions out, both in the environment's units.

    It acts at any budget: `policy(observation, key=key, steps=4, candidates=8)`.
    """

    actor: AbstractActor
    """How the networks act."""
    networks: PyTree = dataclasses.field(repr=False)
    normalisation: Normalisation = dataclasses.field(repr=False)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    """Where the policy comes from: environment, seed, step, versions, data, and the settings of its agent."""
    scores: list[dict[str, Any]] = dataclasses.field(default_factory=list, repr=False)
    """How well it does at which budget, one row each (see `with_scores`); empty where that was not measured."""
    budget: Budget = dataclasses.field(default=None)  # pyright: ignore[reportAssignmentType]
    """What it acts at unless told otherwise; by default the actor's usual."""
    plan: _planning.Plan | None = dataclasses.field(default=None, repr=False)
    """How the budget was chosen, after `for_latency`; belongs to a machine, and is not saved."""

    def __post_init__(self):
        if self.budget is None:
            object.__setattr__(self, "budget", self.actor.budgets.usual)
        self.actor.budgets.refuse(self.budget)

    def __repr__(self) -> str:
        return (
            f"Policy({self.algorithm}, {self.observation_size} observations -> {self.action_size} actions"
            f"{f' for each of {self.chunk} steps' if self.chunk > 1 else ''}, "
            f"acts at {_planning.budget_words(self.budget)} unless told otherwise)"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Its fields, for `pickle` and `copy`: compiled programs stay behind, and are found or made again."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def algorithm(self) -> str:
        """The agent that trained it, or the kind of actor where the provenance does not tell."""
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
        """Actions of one decision, to be carried out one after the other without another look; 1 for most policies."""
        return self.actor.actions_at_once

    @property
    def digest(self) -> str:
        """SHA-256 of what decides how it acts at a budget: its actor and its arrays."""
        digest = hashlib.sha256(json.dumps(to_json(self.actor), sort_keys=True).encode())
        for leaf in jax.tree.leaves((self.networks, self.normalisation)):
            array = np.asarray(leaf)
            digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
        return digest.hexdigest()

    @property
    def device(self) -> latency.Device:
        """Where it acts."""
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

        **Arguments:** `key`, the random key of this decision, such as `jax.random.key(0)`; `steps`, jumps or
        integration steps from noise to action; `candidates`, actions drawn, of which the best by Q is taken;
        `noise_scale`, the temperature (0 is deterministic); `budget`, what the three are taken from where they are not
        given, by default the policy's own.

        A policy of own logs clips each number of an observation to the limits that `load_logs` computed
        (`observation_margin`), and warns the first time; `runner` counts them.

        **Returns:** actions [*batch, action] in the environment's units; [*batch, chunk, action] where the policy gives
        several at once (`chunk`), to be carried out in their order, as `runner` does. Raises a `ValueError` for an
        observation of the wrong shape or with NaN or infinity in it, for what is no random key, and for a budget that
        it cannot act at; a `FloatingPointError` if an action is not finite.
        """
        values = self._checked(observation)
        refuse_other_keys(key)
        program = self._program(self.budget if budget is None else budget, steps, candidates, noise_scale)
        if self._standardisation is not None:
            self._warn_once_of_clipping(self._standardisation, values)
            values = self._standardisation(values)
        actions = np.array(program(self._arrays, values.reshape(-1, self.observation_size), key))
        if not np.isfinite(actions).all():
            raise FloatingPointError("The policy's action is not finite; its weights probably are not either.")
        return actions.reshape(*values.shape[:-1], *actions.shape[1:])

    def outside(self, observation: Shaped[Array | np.ndarray, "*batch observation"]) -> Bool[np.ndarray, "..."]:
        """Which numbers of an observation, or of a batch, are beyond the limits of the logs, so that they are clipped.

        Only policies of own logs have limits (`load_logs`: `observation_margin`). Raises as acting does.
        """
        values = self._checked(observation)
        if self._standardisation is None:
            return np.zeros(values.shape, np.bool_)
        return self._standardisation.outside(values)

    def with_budget(self, budget: Budget) -> "Policy":
        """The same policy, acting at `budget` unless told otherwise; raises a `ValueError` if it cannot."""
        return dataclasses.replace(self, budget=budget, plan=None)

    def with_scores(self, pairs: Sequence[Mapping[str, Any]]) -> "Policy":
        """The same policy with what was measured of it, which its file then carries.

        **Arguments:** `pairs`, a row for each budget: `inference_steps`, `candidates` and any other field of `Budget`
        that is not its default; `success` in [0, 1] (or None and `return`, where the environment reports no success)
        and `difference`, the paired difference to one step and one candidate, each with `_low` and `_high`, the ends of
        its interval; and whatever else is worth keeping.

        Raises a `ValueError` for rows that lack one of these.
        """
        return dataclasses.replace(self, scores=_planning.checked_scores(pairs), plan=None)

    def on(self, device: latency.Device) -> "Policy":
        """The same policy, acting on `device`."""
        networks, normalisation = jax.device_put((self.networks, self.normalisation), device)
        return dataclasses.replace(self, networks=networks, normalisation=normalisation, plan=None)

    def runner(self, *, key: Key[Array, ""] | Any = None, **budget: Any) -> PolicyRunner:
        """A control loop's way to act: it makes the key of each decision from `key`, and counts what it sees.

        **Arguments:** `key`, of the whole loop; `budget`, what else a call of the policy takes (`steps`, `candidates`,
        `noise_scale`, `budget`). Raises a `ValueError` for what is no random key.
        """
        refuse_other_keys(key)
        return PolicyRunner(self, key, budget)

    def for_latency(
        self, milliseconds: float, device: latency.Device | None = None, *, measure_again: bool = False
    ) -> "Policy":
        """The same policy at the best budget that a decision on one observation has time for.

        What each budget costs is measured once for each device, in calls of this policy from numpy to numpy, and kept
        in the user's cache. The best is the one with the highest success (or return) among the scores. Without
        scores it is the largest trained number of steps that fits, with one candidate (or as many as the agent's own
        method chooses among). `plan` of the result says what was chosen and why.

        **Arguments:** `milliseconds` that a decision may take; `device` to act on, by default where the policy is;
        `measure_again`, whatever the cache says.

        Raises a `ValueError` that names the cheapest budget if none fits.
        """
        if not 0 < milliseconds < math.inf:
            raise ValueError(f"The limit is {milliseconds} ms; give a finite time above 0.")
        policy = self if device is None else self.on(device)
        budgets = _planning.possible_budgets(self.actor, self.budget, self.scores)
        names = [json.dumps(to_json(budget)) for budget in budgets]
        observation, key = self.normalisation.standardisation().mean, jax.random.key(0)
        found = latency.costs(
            latency.machine(policy.device)
            | {"actor": type(self.actor).__name__, "shapes": [list(array.shape) for array in policy._arrays]},
            {
                name: functools.partial(policy, observation, key=key, budget=budget)
                for name, budget in zip(names, budgets, strict=True)
            },
            measure_again=measure_again,
        )
        scores = self.scores or [None] * len(budgets)
        options = [
            _planning.Option(budget, found[name], score)
            for name, budget, score in zip(names, budgets, scores, strict=True)
        ]
        plan = _planning.choose(options, milliseconds, policy.device.device_kind)
        return dataclasses.replace(policy, budget=plan.budget, plan=plan)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the policy to one file, whole or not at all."""
        content = (self.actor, self.networks, self.normalisation, self.provenance, self.scores, self.budget)
        _file.write(Path(path), _file.Content(*content))

    def _checked(self, observation: Any) -> np.ndarray:
        # In double precision where it is standardised here; else in that of the program.
        kind = np.float32 if self._standardisation is None else np.float64
        return checked_observation(observation, self.observation_size, self.action_size, kind)

    def _warn_once_of_clipping(self, standardisation: Standardisation, values: np.ndarray) -> None:
        outside = standardisation.outside(values)
        if outside.any() and not self._warned:
            self._warned.append(True)
            warnings.warn(outside_sentence(standardisation, outside, values), stacklevel=3)

    # Kept, so that a decision is little more than the call of one compiled program.

    @functools.cached_property
    def _warned(self) -> list[bool]:
        return []

    @functools.cached_property
    def _standardisation(self) -> Standardisation | None:
        """How observations are standardised before the program; None where the program does it."""
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

    def _program(self, budget: Budget, steps: Any, candidates: Any, noise_scale: Any) -> acting.Program:
        asked = (budget, steps, candidates, noise_scale)
        if asked not in self._programs:
            given = {"inference_steps": steps, "candidates": candidates, "noise_scale": noise_scale}
            plain = {name: x.item() if isinstance(x, np.generic) else x for name, x in given.items() if x is not None}
            budget = dataclasses.replace(budget, **plain)
            self.actor.budgets.refuse(budget)
            structure = jax.tree.structure((self.networks, self._program_normalisation))
            self._programs[asked] = acting.program(self.actor, structure, budget)
        return self._programs[asked]


def load_policy(path: str | os.PathLike[str], seed: int | None = None) -> Policy:
    """Loads a policy file, or from a run directory the policy that `seed` trained (None: the lowest good seed).

    Only load files from sources that you trust: the seal finds damage, not intent.

    A seed is bad if its losses became non-finite; asked for by number it is loaded with a warning.
    Raises a `FileNotFoundError` if the path does not exist, and else a `ValueError`, one sentence, if it is a directory
    without that policy, or a file that is unreadable, foreign, of another version, truncated or altered.
    """
    return Policy(*_file.read(_file.find_policy(Path(path), seed)))
