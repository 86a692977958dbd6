"""The members of a run in a local state: which still train, their losses on held-out data, and their policies."""

import dataclasses
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from sorl.config.options import TrainConfig
from sorl.data import LoadedData
from sorl.policy import Policy
from sorl.train import hyperparameters, loop
from sorl.train.draws import Batches
from sorl.train.feeding import validation_batches
from sorl.train.validation import run_validation
from sorl.train.whole_decisions import holds_decisions


class Members:
    """Reads states member by member; members are named by training seed, or in a population by number.

    **Arguments:** `config`, the run's options; `data`.
    """

    def __init__(self, config: TrainConfig, data: LoadedData):
        self._config, self._data = config, data
        self._validates = data.validation is not None and holds_decisions(config, data.validation)
        self._held_out: Batches | None = None
        self._places = {number: place for place, number in enumerate(config.members)}
        self._own = hyperparameters.own_settings([member.agent for member in config.members.values()])

    def bad(self, first_bad_steps: Int[np.ndarray, " members"]) -> dict[int, int]:
        """The first update with a non-finite loss of each member that had one, from `state.first_bad_step`."""
        steps = {number: int(first_bad_steps[place]) for number, place in self._places.items()}
        return {number: step for number, step in steps.items() if step >= 0}

    def good(self, first_bad_steps: Int[np.ndarray, " members"]) -> dict[int, int]:
        """The members that still train, with their place along the state's leading axis."""
        bad = self.bad(first_bad_steps)
        return {number: place for number, place in self._places.items() if number not in bad}

    def validation_losses(self, state: loop.TrainState) -> dict[str, np.ndarray]:
        """The mean losses on held-out data by name, one number per member; empty if no whole decision is held out."""
        if not self._validates:
            return {}
        config = self._config
        if self._held_out is None:  # the batches are always the same
            window = config.agent.window
            self._held_out = validation_batches(self._data.validation, window, batch_size=config.batch_size)
        losses = run_validation(config.shared_agent, state, self._held_out, self._own, batch_size=config.batch_size)
        return {name: np.asarray(loss) for name, loss in losses.items()}

    def restored(self, state: loop.TrainState, earlier: loop.TrainState, members: Iterable[int]) -> loop.TrainState:
        """The state with the networks and optimisers of some members taken from an earlier state."""
        places = jnp.asarray([self._places[number] for number in members])
        return dataclasses.replace(state, agent=_with_members(state.agent, earlier.agent, places))

    def policy(self, number: int, state: loop.TrainState) -> Policy:
        """The policy of a member."""
        agent = self._config.members[number].agent
        networks = loop.of_member(agent.policy(state.agent), jnp.int32(self._places[number]))
        return Policy(agent.actor, networks, self._data.normalisation)


@jax.jit
def _with_members(now: PyTree, earlier: PyTree, places: Int[Array, " members"]) -> PyTree:
    return jax.tree.map(lambda one, other: one.at[places].set(other[places]), now, earlier)
