"""How much faster does training go than a loop in the manner of SORL's released code, beside the machine's ceilings?

The loop here is written for this comparison: it makes the same updates as `sorl.SorlReleased` (a test compares them),
and costs what the released loop costs: batches are sampled on the host with NumPy, each update is one call of a jitted
function, plain differentiation and optax do the work, one Adam holds the policy, the critic and both moving averages,
and statistics of all gradients are computed in every step.
"""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("released")

import dataclasses
import sys
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ceilings import interleaved, matmul_chain
from runtime import machine
from textbook import critic_values, field_velocity
from updates import Chunks, Pinned, costs, made_up_dataset, make_agent, one_update

from sorl import Dataset, SorlReleased
from sorl.agents.shared.shortcut_agent import SorlSharedDraws, consistency_levels
from sorl.functional import shortcut, td
from sorl.system import command_line
from sorl.system.files import write_json


@dataclasses.dataclass(frozen=True)
class Config:
    """Times the loop and the compiled chunks of `SorlReleased` and `Sorl` in turns, and prints a row for each."""

    networks: tuple[str, ...] = ("2x256", "4x512")
    """Hidden layers x units."""
    backprop_steps: int = 8
    """M^BTT; the number of jumps is drawn for each update."""
    updates: int = 40
    """Updates between two looks at the clock."""
    rounds: int = 7
    """Rounds of measurements taken in turns; the table shows medians."""
    seconds: float = 1.0
    """Approximate length of each measurement."""
    rows: int = 100_000
    """Transitions of the made-up data."""
    out: Path | None = None
    """JSON file for the figures; default: no file."""


class Rows(NamedTuple):
    """Transitions as the released code keeps them on the host: next observations are rows of their own."""

    observation: Any
    action: Any
    reward: Any
    discount: Any
    next_observation: Any


PARTS = "field", "critic", "target_field", "target_critic"


def optimiser(agent: SorlReleased) -> optax.GradientTransformation:
    """One Adam behind one clip, for the four networks together."""
    return optax.chain(optax.clip_by_global_norm(agent.max_grad_norm), optax.adam(agent.learning_rate))


def update(agent: SorlReleased, networks: Any, adam: Any, batch: Any, draws: Any, shared: Any) -> tuple[Any, Any, Any]:
    """A TD step, a policy step and the moving averages; **returns** networks, optimiser's state and metrics."""
    levels = jnp.asarray(consistency_levels(len(batch.reward), agent.discretization_steps), batch.reward.dtype)

    def actions(network, observations, noise, steps):
        field = partial(field_velocity, network)
        return jax.vmap(lambda x, start: shortcut.sample(field, x, start, steps))(observations, noise)

    def values(critic, observations, actions, steps):
        return jax.vmap(lambda x, a: critic_values(critic, x, a, jnp.float32(steps)))(observations, actions)

    # The TD target keeps its gradient, so that this loss moves the policy too.
    def td_loss(own, *, steps):
        next_action = actions(own["field"], batch.next_observation, draws.target_noise, steps)
        next_q = values(networks["target_critic"], batch.next_observation, next_action, steps)
        target = batch.reward + batch.discount * next_q.mean(1)  # [batch, heads] -> [batch]
        return jnp.square(values(own["critic"], batch.observation, batch.action, steps) - target[:, None]).mean()

    # The critic and the teacher are those from before this update.
    def policy_loss(own, *, steps):
        field, teacher = partial(field_velocity, own["field"]), partial(field_velocity, networks["target_field"])
        logged = batch.observation, batch.action
        flow = shortcut.flow_matching_loss(
            jax.vmap(field), *logged, draws.flow_noise, draws.flow_time, agent.discretization_steps
        )
        consistency = shortcut.self_consistency_loss(
            jax.vmap(field), jax.vmap(teacher), *logged, draws.consistency_noise, draws.consistency_time, levels
        )
        action = actions(own["field"], batch.observation, draws.policy_noise, steps)
        q_loss = td.policy_q_loss(values(networks["critic"], batch.observation, action, steps))
        cloning = agent.flow_matching_coefficient * flow + agent.self_consistency_coefficient * consistency
        return cloning + agent.q_coefficient * q_loss

    # The loss has a branch for each jump count, because XLA needs a fixed number of jumps.
    def step(loss, own, adam, index):
        branches = [partial(jax.value_and_grad(loss), steps=steps) for steps in agent.step_counts]
        value, gradient = jax.lax.switch(index, branches, own)
        flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)])
        statistics = {"loss": value, "max": flat.max(), "min": flat.min(), "norm": jnp.linalg.norm(flat)}
        changes, adam = optimiser(agent).update(gradient, adam, own)
        return optax.apply_updates(own, changes), adam, statistics

    own: Any
    own, adam, critic_metrics = step(td_loss, networks, adam, shared.target_steps)
    own, adam, policy_metrics = step(policy_loss, own, adam, shared.policy_steps)
    for name in ("field", "critic"):
        target = f"target_{name}"
        own[target] = optax.incremental_update(networks[name], networks[target], agent.target_rate)
    return own, adam, {"critic": critic_metrics, "policy": policy_metrics}


class HostLoop:
    """Training with one seed in the released code's manner; each call makes `updates` updates."""

    def __init__(self, agent: SorlReleased, dataset: Dataset, *, batch_size: int = 256, updates: int = 1):
        state = agent.init(*dataset.sizes, key=jax.random.key(0))
        self.networks = {name: getattr(state, name) for name in PARTS}
        self.adam: Any = optimiser(agent).init(self.networks)
        self.updates = updates
        self._agent, self._batch_size, self._key = agent, batch_size, jax.random.key(1)
        self._generator = np.random.default_rng(0)
        observations, rows = np.asarray(dataset.observations), np.asarray(dataset.starts)
        self._data = Rows(
            observation=observations[rows],
            action=np.asarray(dataset.actions)[rows],
            reward=np.asarray(dataset.rewards)[rows],
            discount=np.float32(agent.discount) * np.asarray(dataset.masks)[rows],
            next_observation=observations[rows + 1],
        )
        self._step = jax.jit(self._one)

    def __call__(self) -> Any:
        """Makes the updates, without waiting for their results."""
        for _ in range(self.updates):
            rows = self._generator.integers(len(self._data.reward), size=self._batch_size)
            batch = jax.tree.map(lambda array, rows=rows: array[rows], self._data)
            self.networks, self.adam, self._key, _ = self._step(self.networks, self.adam, self._key, batch)
        return self.networks

    def _one(self, networks, adam, key, batch):
        key, own, common = jax.random.split(key, 3)
        draws = self._agent.draw(len(batch.reward), batch.action.shape[-1], key=own)
        shared = self._agent.draw_shared(jnp.int32(0), key=common)
        networks, adam, metrics = update(self._agent, networks, adam, batch, draws, shared)
        return networks, adam, key, metrics

    def flops(self) -> float:
        """XLA's count of an update with the largest number of jumps, which inside a switch it could not count."""
        most = jnp.int32(len(self._agent.step_counts) - 1)
        batch = jax.tree.map(lambda array: array[: self._batch_size], self._data)

        def pinned(networks, adam, batch):
            draws = self._agent.draw(len(batch.reward), batch.action.shape[-1], key=jax.random.key(0))
            return update(self._agent, networks, adam, batch, draws, SorlSharedDraws(most, most))

        return costs(jax.jit(pinned).lower(self.networks, self.adam, batch).compile())[0]


def main(config: Config) -> list[dict[str, Any]]:
    """Prints a table and **returns** its rows."""
    here = machine()
    print(f"{here['device']} ({here['backend']}), jax {here['jax']}, {here['platform']}")
    rows = [row for network in config.networks for row in compared(config, network)]
    if config.out is not None:
        write_json(config.out, {"machine": here, "command": sys.argv, "rows": rows})
    return rows


def compared(config: Config, network: str) -> list[dict[str, Any]]:
    """The three programs' rows for one size of network, and the product chain's."""
    layers, width = map(int, network.split("x"))
    dataset = made_up_dataset(config.rows, 28, 5)
    agents: dict[str, Any] = {
        name: make_agent(name, width=width, layers=layers, backprop_steps=config.backprop_steps)
        for name in ("SorlReleased", "Sorl")
    }
    host = HostLoop(agents["SorlReleased"], dataset, updates=config.updates)
    calls: dict[str, Any] = {"released manner": host}
    calls |= {name: Chunks(agent, dataset, updates=config.updates) for name, agent in agents.items()}
    flops = {"released manner": host.flops()}
    flops |= {name: costs(one_update(Pinned(agent), dataset))[0] for name, agent in agents.items()}
    chain, chain_flops = matmul_chain(256, width)
    times = interleaved(calls | {"products": chain}, rounds=config.rounds, at_least=config.seconds)
    seconds = {name: median(times[name]) / config.updates for name in calls}
    rows = [
        {
            "network": network,
            "program": name,
            "update_ms": 1000 * seconds[name],
            "speed": seconds["released manner"] / seconds[name],
            "gflop": flops[name] / 1e9,
        }
        for name in calls
    ]
    ceiling = chain_flops / median(times["products"]) / 1e9
    print(f"{network}, M^BTT {config.backprop_steps}; a chain of products runs at {ceiling:.0f} GFLOP/s")
    for row in rows:
        print(
            f"  {row['program']:<16} {row['update_ms']:7.2f} ms an update, {row['speed']:.2f} x the loop's speed; "
            f"{row['gflop']:.2f} GFLOP at {config.backprop_steps} jumps",
            flush=True,
        )
    return [row | {"products_gflops": ceiling} for row in rows]


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python benchmarks/released.py"))
