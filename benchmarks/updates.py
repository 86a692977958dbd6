"""The programs that the benchmarks time: an agent's update on random data, alone or in training's compiled chunk."""

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
from sorl.data.transitions import Window
from sorl.functional.optimisation import AdamState
from sorl.train import loop


class AbstractVariant(AbstractAgent):
    """Wraps an agent, for variants that change its update or its shared draws."""

    agent: eqx.AbstractVar[Any]

    @property
    def actor(self) -> AbstractActor:
        """The actor of the wrapped agent."""
        return self.agent.actor

    @property
    def window(self) -> Window:
        """The window of the wrapped agent."""
        return self.agent.window

    @property
    def discount(self) -> Any:
        """The discount of the wrapped agent."""
        return self.agent.discount

    def init(self, observation_size: int, action_size: int, *, key: Any) -> Any:
        """Initialises the wrapped agent."""
        return self.agent.init(observation_size, action_size, key=key)

    def draw(self, batch_size: int, action_size: int, *, key: Any) -> Any:
        """The wrapped agent's random draws."""
        return self.agent.draw(batch_size, action_size, key=key)

    def losses(self, state: Any, batch: Any, draws: Any, shared: Any) -> dict[str, Any]:
        """The wrapped agent's losses."""
        return self.agent.losses(state, batch, draws, shared)

    def policy(self, state: Any) -> Any:
        """The wrapped agent's policy."""
        return self.agent.policy(state)


class Pinned(AbstractVariant):
    """An agent with a fixed jump count: the Q loss and the TD target always use the largest number of jumps."""

    agent: Any

    def draw_shared(self, step: Any, *, key: Any) -> SorlSharedDraws:
        """The index of the largest step count, as a constant, so that XLA compiles only that branch."""
        most = jnp.int32(len(self.agent.step_counts) - 1)
        return SorlSharedDraws(most, most)

    def update(self, state: Any, batch: Any, draws: Any, shared: Any) -> tuple[Any, dict[str, Any]]:
        """The wrapped agent's update."""
        return self.agent.update(state, batch, draws, shared)


def make_agent(name: str, *, width: int, layers: int, backprop_steps: int) -> AbstractAgent:
    """An agent with `layers` hidden layers of `width` units; agents without jumps ignore `backprop_steps`."""
    settings: dict[str, Any] = {
        "hidden_sizes": (width,) * layers,
        "critic_hidden_sizes": (width,) * layers,
        "backprop_steps": backprop_steps,
        "discretization_steps": max(8, backprop_steps),
    }
    kind = AGENTS[name]
    return kind(**{field: value for field, value in settings.items() if field in kind.__dataclass_fields__})


def made_up_dataset(rows: int, observation_size: int, action_size: int) -> Dataset:
    """A data set of random numbers, because an update's time does not depend on the data's values."""
    generator = np.random.default_rng(0)
    return Dataset(
        observations=jnp.asarray(generator.normal(size=(rows, observation_size)), jnp.float32),
        actions=jnp.asarray(generator.uniform(-1, 1, (rows, action_size)), jnp.float32),
        rewards=-jnp.ones(rows),
        masks=jnp.ones(rows),
        starts=jnp.arange(rows - 1),
    )


class Chunks:
    """A training whose every call makes one chunk of updates of all seeds."""

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
        """The compiled program of a chunk, for its cost and memory analyses."""
        lowered = loop.run_chunk.lower(self._agent, self.state, self.dataset, jnp.int32(1), **self._settings)
        return lowered.compile()


class TextbookChunks:
    """The training of `Chunks` in the textbook's form, with one seed; each call makes `updates` updates."""

    def __init__(self, agent: AbstractAgent, dataset: Dataset, *, batch_size: int = 256, updates: int = 1):
        assert isinstance(agent, Sorl)  # the textbook has no other agent
        state = loop.init(agent, dataset, (0,), batch_size=batch_size)
        self.state = loop.of_member(state.agent, jnp.int32(0))
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
    """One update compiled for the CPU, whose operations XLA counts exactly (inside a loop or a switch it would not).

    The count of the CPU's program serves for all devices: a GPU's takes minutes to compile, and hides its products in
    calls of a library.

    **Arguments:** `seeds`, the number of seeds, vmapped if there is more than one; they share the jump counts.
    """
    state = loop.init(agent, dataset, tuple(range(seeds)), batch_size=batch_size)

    def step(agent, agent_state, key, dataset):
        drawn = loop.draw(agent, key, jnp.int32(0), dataset, batch_size=batch_size)
        return agent.update(agent_state, *drawn, loop.draw_shared(agent, jnp.int32(0)))

    grouped = jax.vmap(step, in_axes=(None, 0, 0, None))
    members = state.agent, state.keys
    if seeds == 1:
        grouped, members = step, jax.tree.map(lambda leaf: leaf[0], members)
    on_cpu = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=on_cpu), (*members, dataset))
    return jax.jit(grouped).lower(agent, *shapes).compile()


def costs(compiled: Any) -> tuple[float, float]:
    """XLA's count of a program's floating-point operations, and of the bytes that it reads and writes."""
    found = compiled.cost_analysis()
    found = found[0] if isinstance(found, list) else found
    return found["flops"], found["bytes accessed"]


def optimiser_bytes(state: Any) -> float:
    """The fewest bytes that Adam and the moving averages move in an update of `state`, which is of a single seed.

    Each trained array and its two moments are read and written, and its gradient is read: 7 passes. Each moving average
    is read and written: 2 passes.
    """

    def size(tree: Any) -> float:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)))

    def is_adam(node: Any) -> bool:
        return isinstance(node, AdamState)

    trained = sum(size(node.mean) for node in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(node))
    averages = size(state) - 3 * trained
    return 7 * trained + 2 * averages
