"""The compiled program of a run with its arguments, and the parts of a state that belong to one member."""

import dataclasses
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from sorl.config.options import TrainConfig
from sorl.data import LoadedData
from sorl.policy import Policy
from sorl.train import loop


class Trainer:
    """Trains the members of a run; members are named by training seed, or in a population by number.

    **Arguments:** `config`, the run's options; `data`.
    """

    def __init__(self, config: TrainConfig, data: LoadedData):
        self._config, self._data = config, data
        self._places = {number: place for place, number in enumerate(config.members)}
        self._own = loop.own_settings([member.agent for member in config.members.values()])
        self._mapping: loop.SeedMapping = (
            loop.default_seed_mapping() if config.seed_mapping == "auto" else config.seed_mapping
        )

    def init(self) -> loop.TrainState:
        """The state before the first update."""
        config, seeds = self._config, tuple(member.seed for member in self._config.members.values())
        return loop.init(config.shared_agent, self._data.train, seeds, self._own, batch_size=config.batch_size)

    def train(self, state: loop.TrainState, updates: int) -> loop.TrainState:
        """Makes updates of every good member and waits for them; `state` is donated."""
        config = self._config
        state = loop.run_chunk(
            config.shared_agent,
            state,
            self._data.train,
            jnp.int32(updates),
            self._own,
            batch_size=config.batch_size,
            log_interval=config.log_interval,
            seed_mapping=self._mapping,
        )
        return jax.block_until_ready(state)

    def validation_losses(self, state: loop.TrainState) -> dict[str, np.ndarray]:
        """The mean losses on held-out data, one of each member; empty if there are none."""
        if self._data.validation is None:
            return {}
        config, held_out = self._config, self._data.validation
        losses = loop.validation_losses(config.shared_agent, state, held_out, self._own, batch_size=config.batch_size)
        return {name: np.asarray(loss) for name, loss in losses.items()}

    def bad(self, state: loop.TrainState) -> dict[int, int]:
        """The first update with a non-finite loss of each member that had one."""
        first = np.asarray(state.first_bad_step)
        return {number: int(first[place]) for number, place in self._places.items() if first[place] >= 0}

    def good(self, state: loop.TrainState) -> dict[int, int]:
        """The members that still train, with their place along the state's leading axis."""
        bad = self.bad(state)
        return {number: place for number, place in self._places.items() if number not in bad}

    def restored(self, state: loop.TrainState, earlier: loop.TrainState, members: Iterable[int]) -> loop.TrainState:
        """The state in which the networks of some members are those of an earlier state."""
        places = jnp.asarray([self._places[number] for number in members])
        agent = jax.tree.map(lambda now, then: now.at[places].set(then[places]), state.agent, earlier.agent)
        return dataclasses.replace(state, agent=agent)

    def policy(self, number: int, state: loop.TrainState) -> Policy:
        """The policy of a member."""
        agent = self._config.members[number].agent
        networks = loop.of_member(agent.policy(state.agent), jnp.int32(self._places[number]))
        return Policy(agent.actor, networks, self._data.normalisation)
