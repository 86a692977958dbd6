"""Which agents keep both modes of the data when they clone, and which find the better mode when they use values?"""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("two_modes")

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from pictures import pyplot_without_screen
from runtime import machine

from sorl import Dataset, Normalisation, Policy
from sorl.agents import AGENTS
from sorl.system import command_line
from sorl.system.files import write_json
from sorl.train import loop


MODES = np.array([[-0.5, -0.5], [0.5, 0.5]])
"""Centres of the two modes of the logged actions, equally likely; actions have two dimensions."""
DEVIATION = 0.1
"""Standard deviation of the actions around their centre, in each dimension."""
REWARDS = (0.5, 1.0)
"""Highest reward of each mode, at its centre; the second mode is the better one."""
REWARD_WIDTH = 0.3
"""Standard deviation of the Gaussian reward around each centre."""
RADIUS = 3 * DEVIATION
"""An action belongs to a mode if it is within this distance of its centre, as 98.9 % of the logged actions are."""
KEPT = (0.35, 0.65)
"""Range of each mode's share of all actions in which both modes count as kept."""
FOUND = 0.9
"""Share of all actions from which the better mode counts as found."""


@dataclasses.dataclass(frozen=True)
class Case:
    """An agent's settings, besides the sizes and learning rate that all agents share."""

    cloning: dict[str, Any]
    """Settings with which the agent only clones the data."""
    values: dict[str, Any] | None
    """Settings with which the agent follows values; None if it has no critic."""


CASES: dict[str, Case] = {
    "Sorl": Case({"q_coefficient": 0.0}, {"q_coefficient": 100.0}),
    "SorlReleased": Case({"q_coefficient": 0.0}, {"q_coefficient": 100.0}),
    # Cloned, and then the best of many candidates, which its TD target is made for.
    "SorlPlus": Case({"q_coefficient": 0.0}, {"use_q_loss": False, "backup_candidates": 16}),
    # Adam's steps do not depend on the loss's scale, so a weight of a million makes the other loss negligible.
    "Fql": Case({"distillation_coefficient": 1e6}, {"distillation_coefficient": 0.1}),
    "Fbrac": Case({"flow_matching_coefficient": 1e6}, {"flow_matching_coefficient": 0.1}),
    "Fawac": Case({"temperature": 0.0}, {"temperature": 10.0}),
    "Ifql": Case({"candidates": 1}, {"candidates": 32}),
    "Bc": Case({}, None),
    "Iql": Case({"temperature": 0.0}, {"temperature": 10.0}),
    "Rebrac": Case({"q_coefficient": 0.0}, {"actor_cloning_coefficient": 0.01}),
    # With the published 5 denoising steps a fifth of its samples lie between the modes, however well it is trained.
    "Idql": Case({"denoising_steps": 20, "candidates": 1}, {"denoising_steps": 20, "candidates": 32}),
    "Srpo": Case({"q_coefficient": 0.0}, {"q_coefficient": 0.3}),
    "Cac": Case({"q_coefficient": 0.0, "candidates": 1}, {"q_coefficient": 10.0}),
}
"""Every agent's settings, by its class name."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains every agent twice on a bandit with two modes, to clone and to follow values, and counts its actions.

    A mode's share is the share of all drawn actions that lie near its centre; an action between the modes counts for
    neither. Both modes are kept if each has a share of 0.35 to 0.65, and the better one is found if it has at least
    0.9. Policies act at their usual budget and temperature, at which a Gaussian policy returns its mean.
    """

    agents: tuple[str, ...] = tuple(AGENTS)
    """Class names of the agents."""
    updates: int = 5_000
    """Updates of each training; after only 2000, critics that see the step count still rise beyond the modes."""
    samples: int = 10_000
    """Actions drawn from each policy."""
    batch_size: int = 256
    """Transitions of one update."""
    width: int = 128
    """Units of each hidden layer."""
    layers: int = 2
    """Hidden layers of policies and critics."""
    learning_rate: float = 1e-3
    """Adam's learning rate, for all agents."""
    target_rate: float = 0.02
    """Rate of the moving averages of all agents."""
    rows: int = 10_000
    """Number of logged actions."""
    seed: int = 0
    """Random seed of the logged actions, the trainings and the drawn actions."""
    out: Path = Path("two_modes")
    """Path of the table and the picture, to which .json and .png are added."""

    def __post_init__(self):
        unknown = [name for name in self.agents if name not in AGENTS or name not in CASES]
        if unknown:
            raise ValueError(f"agents has {unknown}, without settings here; give some of {', '.join(CASES)}.")
        if self.samples < 10_000:
            raise ValueError(f"samples is {self.samples}; give at least 10000, so that shares are accurate to 0.01.")


def main(config: Config) -> list[dict[str, Any]]:
    """Trains all agents, draws actions, prints and writes the table and the picture; **returns** the table's rows."""
    dataset = bandit(config.rows, config.seed)
    rows, clouds = [], {}
    print(f"{'agent':<14}{'trained to':<12}{'worse mode':>11}{'better mode':>12}  verdict", flush=True)
    for name in config.agents:
        for aim, fields in (("clone", CASES[name].cloning), ("use values", CASES[name].values)):
            if fields is None:
                continue
            start = time.perf_counter()
            actions = clouds[name, aim] = drawn_actions(name, fields, dataset, config)
            row = {"agent": name, "aim": aim, "settings": fields} | judge(actions, aim)
            rows.append(row | {"seconds": time.perf_counter() - start})
            shares = f"{row['worse_share']:>11.3f}{row['better_share']:>12.3f}"
            print(f"{name:<14}{aim:<12}{shares}  {row['verdict']}", flush=True)
    _write(config, rows, clouds, np.asarray(dataset.actions))
    return rows


def bandit(rows: int, seed: int) -> Dataset:
    """Logged actions around two centres, each an episode of one step, rewarded by its distance to the centres."""
    generator = np.random.default_rng(seed)
    modes = generator.integers(0, 2, rows)
    actions = np.clip(MODES[modes] + DEVIATION * generator.standard_normal((rows, 2)), -1, 1)
    # Every second row is only the next state of the row before it.
    rewards = np.repeat(reward(actions), 2)
    return Dataset(
        observations=jnp.zeros((2 * rows, 1)),
        actions=jnp.asarray(np.repeat(actions, 2, axis=0), jnp.float32),
        rewards=jnp.asarray(rewards, jnp.float32),
        masks=jnp.zeros(2 * rows),
        starts=2 * jnp.arange(rows),
    )


def reward(actions: Float[np.ndarray, "rows 2"]) -> Float[np.ndarray, " rows"]:
    """The reward: a Gaussian around each centre, with the mode's height."""
    distances = np.linalg.norm(actions[:, None] - MODES, axis=-1)
    return np.exp(-((distances / REWARD_WIDTH) ** 2) / 2) @ np.array(REWARDS)


def drawn_actions(
    name: str, fields: dict[str, Any], dataset: Dataset, config: Config
) -> Float[np.ndarray, "samples 2"]:
    """Trains the agent with these settings, and draws actions from its policy."""
    agent = _make_agent(name, fields, config)
    state = loop.init(agent, dataset, (config.seed,), batch_size=config.batch_size)
    state = loop.run_chunk(
        agent,
        state,
        dataset,
        jnp.int32(config.updates),
        batch_size=config.batch_size,
        log_interval=config.updates,
        seed_mapping="map",
    )
    if int(state.first_bad_step[0]) >= 0:
        raise FloatingPointError(f"{name} had a loss that is not finite; lower --learning-rate.")
    networks = agent.policy(jax.tree.map(lambda leaf: leaf[0], state.agent))
    policy = Policy(agent.actor, networks, Normalisation.identity(1, 2))
    observations = np.zeros((config.samples, 1), np.float32)
    return policy(observations, key=jax.random.key(config.seed))


def _make_agent(name: str, fields: dict[str, Any], config: Config) -> Any:
    agent: Any = AGENTS[name]
    sizes = (config.width,) * config.layers
    shared = {
        "hidden_sizes": sizes,
        "critic_hidden_sizes": sizes,
        "learning_rate": config.learning_rate,
        "target_rate": config.target_rate,
        "width": config.width,
        # No schedule is longer than the run.
        "pretraining_updates": config.updates // 2,
        "decay_updates": float(config.updates),
        "refinement_updates": float(config.updates),
    }
    known = {field.name for field in dataclasses.fields(agent)}
    return agent(**{key: value for key, value in shared.items() if key in known} | fields)


def judge(actions: Float[np.ndarray, "samples 2"], aim: str) -> dict[str, Any]:
    """Each mode's share of the actions, and the verdict on the aim."""
    near = np.linalg.norm(actions[:, None] - MODES, axis=-1) < RADIUS
    worse, better = (float(share) for share in near.mean(axis=0))
    if aim == "clone":
        passed = all(KEPT[0] <= share <= KEPT[1] for share in (worse, better))
        verdict = "keeps both modes" if passed else "loses a mode"
    else:
        passed = better >= FOUND
        verdict = "finds the better mode" if passed else "misses the better mode"
    return {
        "worse_share": worse,
        "better_share": better,
        "mean_reward": float(reward(actions).mean()),
        "passed": passed,
        "verdict": verdict,
    }


def _write(config: Config, rows: Sequence[dict[str, Any]], clouds: dict[Any, Any], logged: Any) -> None:
    settings = dataclasses.asdict(config) | {"out": str(config.out)}
    table, picture = config.out.with_suffix(".json"), config.out.with_suffix(".png")
    table.parent.mkdir(parents=True, exist_ok=True)
    write_json(table, {"machine": machine(), "settings": settings, "rows": rows})
    _draw(config.agents, clouds, logged, picture)
    print(f"Wrote {table}")


def _draw(agents: Sequence[str], clouds: dict[Any, Any], logged: Any, path: Path) -> None:
    """Draws a column for each agent: its actions after cloning above, and after following values below."""
    if (pyplot := pyplot_without_screen()) is None:
        return
    size = (1.5 * len(agents) + 0.5, 3.6)
    figure, axes = pyplot.subplots(2, len(agents), figsize=size, squeeze=False, layout="constrained")
    for column, name in enumerate(agents):
        for row, aim in enumerate(("clone", "use values")):
            place = axes[row, column]
            place.plot(*logged[:2000:2].T, ".", color="0.85", markersize=1)
            if (name, aim) in clouds:
                place.plot(*clouds[name, aim][:1000].T, ".", color="C0", markersize=1)
            place.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), xticks=[], yticks=[], aspect="equal")
        axes[0, column].set_title(name, fontsize=9)
    for row, label in enumerate(("cloning", "following values")):
        axes[row, 0].set_ylabel(label, fontsize=9)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    print(f"Drew {path}")


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python benchmarks/two_modes.py"))
