"""What the benchmarks time: an agent's update on made-up data, alone or in the scanned chunk that training runs."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import textbook

from sorl import Dataset, Sorl
from sorl.agents import AGENTS, AbstractAgent
from sorl.agents.actors import AbstractActor
from sorl.agents.shared.shortcut_agent import SorlSharedDraws
from sorl.functional.optimisation import AdamState
from sorl.train import loop


class AbstractVariant(AbstractAgent):
    """An agent with another update, or other shared draws."""

    agent: eqx.AbstractVar[Any]

    @property
    def actor(self) -> AbstractActor:
        """The agent's."""
        return self.agent.actor

    def init(self, observation_size: int, action_size: int, *, key: Any) -> Any:
        """The agent's."""
        return self.agent.init(observation_size, action_size, key=key)

    def draw(self, batch_size: int, action_size: int, *, key: Any) -> Any:
        """The agent's."""
        return self.agent.draw(batch_size, action_size, key=key)

    def losses(self, state: Any, batch: Any, draws: Any, shared: Any) -> dict[str, Any]:
        """The agent's."""
        return self.agent.losses(state, batch, draws, shared)

    def policy(self, state: Any) -> Any:
        """The agent's."""
        return self.agent.policy(state)


class Pinned(AbstractVariant):
    """An agent whose jump counts are not drawn: the Q loss and the TD target always take the most jumps."""

    agent: Any

    def draw_shared(self, step: Any, *, key: Any) -> SorlSharedDraws:
        """The last of the agent's step counts, as a constant: XLA then compiles that branch alone."""
        most = jnp.int32(len(self.agent.step_counts) - 1)
        return SorlSharedDraws(most, most)

    def update(self, state: Any, batch: Any, draws: Any, shared: Any) -> tuple[Any, dict[str, Any]]:
        """The agent's."""
        return self.agent.update(state, batch, draws, shared)


def make_agent(name: str, *, width: int, layers: int, backprop_steps: int) -> AbstractAgent:
    """An agent of `layers` hidden layers of `width` units; one without jumps has no use for the step counts."""
    settings: dict[str, Any] = {
        "hidden_sizes": (width,) * layers,
        "critic_hidden_sizes": (width,) * layers,
        "backprop_steps": backprop_steps,
        "discretization_steps": max(8, backprop_steps),
    }
    kind = AGENTS[name]
    return kind(**{field: value for field, value in settings.items() if field in kind.__dataclass_fields__})


def made_up_dataset(rows: int, observation_size: int, action_size: int) -> Dataset:
    """A data set of noise: how long an update takes does not depend on what it learns from."""
    generator = np.random.default_rng(0)
    return Dataset(
        observations=jnp.asarray(generator.normal(size=(rows, observation_size)), jnp.float32),
        actions=jnp.asarray(generator.uniform(-1, 1, (rows, action_size)), jnp.float32),
        rewards=-jnp.ones(rows),
        masks=jnp.ones(rows),
        starts=jnp.arange(rows - 1),
    )


class Chunks:
    """Training in progress: each call makes one chunk of updates of every seed."""

    def __init__(
        self,
        agent: AbstractAgent,
        dataset: Dataset,
        *,
        seeds: int = 1,
        batch_size: int = 256,
        seed_mapping: loop.SeedMapping | None = None,
        updates: int = 1,
    ):
        self.state = loop.init(agent, dataset, tuple(range(seeds)), batch_size=batch_size)
        self.updates = updates
        self.dataset = dataset
        self._agent = agent
        self._settings: Any = {
            "batch_size": batch_size,
            "log_interval": 1000,
            "seed_mapping": seed_mapping or loop.default_seed_mapping(),
        }

    def __call__(self) -> Any:
        """One chunk of `updates` updates."""
        updates = jnp.int32(self.updates)
        self.state = loop.run_chunk(self._agent, self.state, self.dataset, updates, **self._settings)
        return self.state

    def compiled(self) -> Any:
        """The program, for its analyses."""
        lowered = loop.run_chunk.lower(self._agent, self.state, self.dataset, jnp.int32(1), **self._settings)
        return lowered.compile()


class TextbookChunks:
    """The same training as `Chunks`, of one seed, in the textbook's words; each call makes `updates` updates."""

    def __init__(self, agent: AbstractAgent, dataset: Dataset, *, batch_size: int = 256, updates: int = 1):
        assert isinstance(agent, Sorl)  # the only one in that book
        state = loop.init(agent, dataset, (0,), batch_size=batch_size)
        self.state = loop.of_seed(state.agent, jnp.int32(0))
        self.updates = updates
        self._step = 0
        self._train = partial(textbook.train, agent, dataset=dataset, key=state.keys[0], batch_size=batch_size)

    def __call__(self) -> Any:
        """One chunk of `updates` updates."""
        first, last = jnp.int32(self._step), jnp.int32(self._step + self.updates)
        self.state, _ = self._train(state=self.state, first=first, last=last)
        self._step += self.updates
        return self.state


def one_update(agent: AbstractAgent, dataset: Dataset, *, seeds: int = 1, batch_size: int = 256) -> Any:
    """One update, compiled: what XLA counts there, it counts once (in a loop or a switch it would not).

    **Arguments:** `seeds`, vmapped if there is more than one; they share the jump counts.
    """
    state = loop.init(agent, dataset, tuple(range(seeds)), batch_size=batch_size)

    def step(agent, agent_state, key, dataset):
        drawn = loop.draw(agent, key, jnp.int32(0), dataset, batch_size=batch_size)
        return agent.update(agent_state, *drawn, loop.draw_shared(agent, jnp.int32(0)))

    grouped = jax.vmap(step, in_axes=(None, 0, 0, None))
    alone = jax.tree.map(lambda leaf: leaf[0], (state.agent, state.keys))
    if seeds == 1:
        return jax.jit(step).lower(agent, *alone, dataset).compile()
    return jax.jit(grouped).lower(agent, state.agent, state.keys, dataset).compile()


def costs(compiled: Any) -> tuple[float, float]:
    """XLA's count of a program's floating-point operations, and of the bytes that it reads and writes."""
    found = compiled.cost_analysis()
    found = found[0] if isinstance(found, list) else found
    return found["flops"], found["bytes accessed"]


def optimiser_bytes(state: Any) -> float:
    """Bytes that Adam and the moving averages must move in an update of `state`, a single seed's.

    Every trained array is read and written with its two moments, and its gradient is read: 7 passes over each; and a
    moving average is read and written.
    """

    def size(tree: Any) -> float:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)))

    def is_adam(node: Any) -> bool:
        return isinstance(node, AdamState)

    trained = sum(size(node.mean) for node in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(node))
    averages = size(state) - 3 * trained
    return 7 * trained + 2 * averages
