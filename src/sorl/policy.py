"""What a user deploys: one file that holds a policy, and the callable that it loads into.

The file has three parts: a line with the format's name, its version and the SHA-256 of all that follows; a line of JSON
that says what the policy is; and the arrays, in Equinox's serialisation.
"""

import dataclasses
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from sorl.agents import AbstractAgent, Budget
from sorl.config import agent_from_json, to_json
from sorl.files import whole_file
from sorl.normalisation import Normalisation


FORMAT = "sorl-policy"
FORMAT_VERSION = 1


@jax.jit
def decide(
    agent: AbstractAgent,
    networks: PyTree,
    normalisation: Normalisation,
    observations: Float[Array, "batch observation"],
    keys: Key[Array, " batch"],
    budget: Budget,
) -> Float[Array, "batch action"]:
    """One decision for each row, in the environment's units; row `i` draws from `keys[i]` alone."""

    def one(observation, key):
        draws = agent.draw_action(normalisation.action_low.shape[0], budget, key=key)
        return agent.act(networks, normalisation.observation(observation), draws, budget)

    return normalisation.environment_action(jax.vmap(one)(observations, keys))


class Policy:
    """A trained policy: observations in, actions out, both in the environment's units.

    It acts at any budget: `policy(observation, key=key, steps=4, candidates=8)`.
    """

    def __init__(
        self,
        agent: AbstractAgent,
        networks: PyTree,
        normalisation: Normalisation,
        provenance: dict[str, Any] | None = None,
    ):
        self.agent = agent
        self.networks = networks
        self.normalisation = normalisation
        self.provenance = provenance or {}
        """Where the policy comes from: environment, seed, step, versions, data."""

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        return self.normalisation.observation_mean.shape[0]

    @property
    def action_size(self) -> int:
        """Length of an action."""
        return self.normalisation.action_low.shape[0]

    def __call__(
        self,
        observation: Float[Array | np.ndarray, "*batch observation"],
        *,
        key: Key[Array, ""],
        steps: int | None = None,
        candidates: int | None = None,
        noise_scale: float | None = None,
    ) -> Float[np.ndarray, "*batch action"]:
        """Acts on one observation or a batch of them.

        **Arguments:** `key`, the random key of this decision; `steps`, jumps or integration steps from noise to action;
        `candidates`, actions drawn, of which the best by Q is taken; `noise_scale`, the temperature (0 is
        deterministic). What is not given is the agent's usual.

        **Returns:** actions in the environment's units. Raises a `ValueError` for an observation of the wrong shape or
        with NaN or infinity in it, and for a budget that the agent cannot act on.
        """
        rows = self._checked(observation)
        keys = jax.random.split(key, len(rows))
        budget = self._budget(steps, candidates, noise_scale)
        actions = decide(self.agent, self.networks, self.normalisation, jnp.asarray(rows), keys, budget)
        return np.asarray(actions).reshape(*np.shape(observation)[:-1], self.action_size)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the policy to one file, whole or not at all."""
        payload = io.BytesIO()
        eqx.tree_serialise_leaves(payload, (self.networks, self.normalisation))
        header = {
            "agent": to_json(self.agent),
            "observation_size": self.observation_size,
            "action_size": self.action_size,
            "provenance": self.provenance,
        }
        content = json.dumps(header).encode() + b"\n" + payload.getvalue()
        seal = f"{FORMAT} {FORMAT_VERSION} {hashlib.sha256(content).hexdigest()}\n".encode()
        with whole_file(Path(path), "wb") as file:
            file.write(seal + content)

    def _budget(self, steps: int | None, candidates: int | None, noise_scale: float | None) -> Budget:
        own = self.agent.budgets
        asked = {"inference_steps": steps, "candidates": candidates, "noise_scale": noise_scale}
        budget = dataclasses.replace(own.usual, **{name: value for name, value in asked.items() if value is not None})
        own.refuse(budget)
        return budget

    def _checked(self, observation: Any) -> np.ndarray:
        values = np.asarray(observation, dtype=np.float32)
        if values.shape[-1:] != (self.observation_size,):
            raise ValueError(
                f"The observation has shape {values.shape}; this policy acts on shape ({self.observation_size},) or a "
                f"batch (.., {self.observation_size}): give what the environment of training gives."
            )
        if not np.isfinite(values).all():
            first = np.argwhere(~np.isfinite(values))[0].tolist()
            raise ValueError(
                f"The observation of shape {values.shape} holds {values[tuple(first)]} at index {first}; the policy of "
                f"shape ({self.observation_size},) -> ({self.action_size},) needs finite numbers: check the sensor or "
                "simulator that made it."
            )
        return values.reshape(-1, self.observation_size)


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """Loads a policy file; raises a `ValueError` in one sentence if it is foreign, truncated, altered or too new."""
    content = Path(path).read_bytes()
    seal, _, rest = content.partition(b"\n")
    words = seal[:200].split(b" ")
    if len(words) != 3 or words[0] != FORMAT.encode():
        raise ValueError(f"{path} is not a policy file of sorl; give a file that training or Policy.save wrote.")
    if words[1] != str(FORMAT_VERSION).encode():
        raise ValueError(
            f"{path} has format version {words[1].decode(errors='replace')!r}; this sorl reads version "
            f"{FORMAT_VERSION}: install the version of sorl that wrote it."
        )
    if hashlib.sha256(rest).hexdigest().encode() != words[2]:
        raise ValueError(
            f"{path} does not match its own SHA-256, so it was truncated or altered; copy it again from its source."
        )
    header_line, _, payload = rest.partition(b"\n")
    header = json.loads(header_line)
    agent = agent_from_json(header["agent"], f"{path}")
    template = eqx.filter_eval_shape(_template, agent, header["observation_size"], header["action_size"])
    networks, normalisation = eqx.tree_deserialise_leaves(io.BytesIO(payload), template)
    return Policy(agent, networks, normalisation, header["provenance"])


def _template(agent: AbstractAgent, observation_size: int, action_size: int) -> tuple[PyTree, Normalisation]:
    state = agent.init(observation_size, action_size, key=jax.random.key(0))
    return agent.policy(state), Normalisation.identity(observation_size, action_size)
