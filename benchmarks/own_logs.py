"""How good are the defaults for own logs? On many kinds of logs, is SORL as good as cloning, or else does it warn?"""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("own_logs", stopped="the same command continues")

import dataclasses
import functools
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from reaching_arm import Arms
from runtime import machine

from sorl import Policy, load_policy
from sorl.runs.metrics import read_metrics
from sorl.runs.run import policy_path
from sorl.sweep.grid import with_joined_options
from sorl.system import command_line
from sorl.system.files import read_json, write_json
from sorl.train import __main__ as train
from sorl.train.value_range import departures


Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Kind:
    """The settings of a set of logs."""

    episodes: int = 150
    limit: int = 80
    """Steps after which an episode is truncated."""
    noise: float = 0.3
    """Scale of the demonstrator's noise, as a share of the torque limits."""
    reward: str = "dense"
    """`dense`: minus distance and effort; `sparse`: -1 until the goal is reached; `positive`: exp(-distance / 0.3), and
    episodes do not end at the goal."""
    reward_scale: float = 1.0
    action_scale: float = 1.0
    """Factor on the torques in the logs, which gives them another unit."""


KINDS = {
    "dense": Kind(),
    "rewards x 0.01": Kind(reward_scale=0.01),
    "rewards x 100": Kind(reward_scale=100.0),
    "sparse": Kind(reward="sparse"),
    "positive": Kind(reward="positive"),
    "short": Kind(limit=20, episodes=400),
    "long": Kind(limit=300, noise=0.5, episodes=60),
    "few": Kind(episodes=15),
    "good": Kind(noise=0.05),
    "noisy": Kind(noise=0.8),
    "actions x 0.001": Kind(action_scale=0.001),
}
"""The kinds of logs, by name; the noisy demonstrator of `long` needs many of its at most 300 steps."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains with `sorl.train --data` on logs of a simulated arm, and plays the policies in the simulator.

    For each kind of logs, setting and number of updates, it prints and writes the mean return of episodes (before the
    kind's reward scale), the share of episodes that reached the goal, mean values of the last row of metrics, and
    whether the run warned of its values. All policies and the demonstrator start from the same states.
    """

    settings: tuple[str, ...] = ("bc", "sorl --agent.q-coefficient 0", "sorl")
    """Agents by their names in `sorl.train`, each optionally followed by its own options."""
    kinds: tuple[str, ...] = tuple(KINDS)
    """Kinds of logs, by name."""
    updates: tuple[int, ...] = (2_000, 8_000)
    """Increasing numbers of updates after which the policies are played; a later one resumes the run."""
    options: str = "--agent.hidden-sizes 256 256"
    """More options of `sorl.train` for all settings."""
    critic_options: str = "--agent.critic-hidden-sizes 256 256"
    """More options for the settings that have a critic."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds."""
    episodes: int = 100
    """Episodes that each policy plays."""
    runs: Path = Path("runs/own_logs")
    """Directory for logs and runs; an existing run is continued, or only played if it is long enough."""
    out: Path = Path("own_logs.json")
    """JSON file of the table; its earlier rows are kept unless they are measured again."""

    def __post_init__(self):
        unknown = [name for name in self.kinds if name not in KINDS]
        if unknown:
            raise ValueError(f"kinds has {unknown}; give some of {', '.join(KINDS)}.")
        if list(self.updates) != sorted(set(self.updates)):
            raise ValueError(f"updates is {self.updates}; give increasing numbers.")


def main(config: Config) -> list[Row]:
    """Writes the logs, trains and plays the policies, prints and writes the table, and **returns** its rows."""
    config.runs.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name in config.kinds:
        kind, path = KINDS[name], config.runs / f"{_slug(name)}.npz"
        if not path.exists():
            write_logs(path, kind)
        rows.append({"kind": name, "setting": "demonstrator"} | play(kind, None, config.episodes))
        _print(rows[-1:])
        for setting in config.settings:
            for updates in config.updates:
                rows += (new := _trained(config, name, setting, updates, path))
                _print(new)
                _write(config.out, rows)
    return rows


def write_logs(path: Path, kind: Kind, seed: int = 0) -> None:
    """Writes an npz file of demonstrations, in physical units, as `sorl.load_logs` documents it."""
    # All episodes run side by side for the most steps that one may have.
    arms = Arms(kind.episodes, np.random.default_rng(seed))
    steps = []
    noise = np.zeros_like(arms.angles)
    for _ in range(kind.limit):
        noise = _next_noise(noise, kind, arms.generator)
        torques = arms.demonstrate(noise)
        observations = arms.observe()
        rewards, reached = arms.step(torques)
        steps.append((observations, torques, *_rewarded(kind, arms, rewards, reached), arms.observe()))
    observations, actions, rewards, terminations, nexts = (np.stack(each, axis=1) for each in zip(*steps, strict=True))
    # Each episode is cut where it terminated, or else at the limit, which is a time-out.
    episodes = []
    for one in range(kind.episodes):
        ended = np.flatnonzero(terminations[one])
        length = ended[0] + 1 if len(ended) else kind.limit
        cut = np.arange(length) == length - 1
        episodes.append(
            {
                "observations": observations[one, :length],
                "actions": (kind.action_scale * actions[one, :length]).astype(np.float32),
                "rewards": (kind.reward_scale * rewards[one, :length]).astype(np.float32),
                "terminals": terminations[one, :length],
                "timeouts": cut & ~terminations[one, :length],
                "next_observations": nexts[one, :length],
            }
        )
    # Within an episode the next observation is that of the next row, with its sensor noise.
    for episode in episodes:
        episode["next_observations"][:-1] = episode["observations"][1:]
    rows: Any = {key: np.concatenate([episode[key] for episode in episodes]) for key in episodes[0]}
    np.savez(path, **rows)


def play(kind: Kind, act: Callable[[Any, int], Any] | None, episodes: int, seed: int = 1) -> Row:
    """Plays episodes with `act`, from (observations, step) to actions in the logs' unit, or with the demonstrator."""
    arms = Arms(episodes, np.random.default_rng(seed))
    noise, returns = np.zeros_like(arms.angles), np.zeros(episodes)
    running, lengths = np.ones(episodes, bool), np.zeros(episodes)
    for step in range(kind.limit):
        if act is None:
            noise = _next_noise(noise, kind, arms.generator)
            torques = arms.demonstrate(noise)
        else:
            torques = act(arms.observe(), step) / kind.action_scale
        rewards, terminated = _rewarded(kind, arms, *arms.step(torques))
        returns += running * rewards
        lengths += running
        running &= ~terminated
    near = arms.distances < 0.1 if kind.reward == "positive" else ~running
    return {"return": float(returns.mean()), "reached": float(near.mean()), "length": float(lengths.mean())}


def _rewarded(kind: Kind, arms: Arms, rewards: Any, reached: Any) -> tuple[Float[np.ndarray, " arms"], Any]:
    if kind.reward == "sparse":
        return np.where(reached, 0.0, -1.0), reached
    if kind.reward == "positive":
        return np.exp(-arms.distances / 0.3), np.zeros_like(reached)
    return rewards, reached


def _next_noise(noise: Any, kind: Kind, generator: np.random.Generator) -> Any:
    """Noise that is correlated over several steps, like that of a human demonstrator."""
    return 0.8 * noise + 0.6 * kind.noise * generator.standard_normal(noise.shape)


def _trained(config: Config, name: str, setting: str, updates: int, path: Path) -> list[Row]:
    """Trains one run up to `updates` updates, and **returns** a row for each seed."""
    directory = config.runs / _slug(f"{name} {setting} {config.options} {' '.join(map(str, config.seeds))}")
    agent, *own = shlex.split(setting)
    options = shlex.split(config.options) + (shlex.split(config.critic_options) if agent != "bc" else [])
    arguments = [f"agent:{agent}", "--data", str(path), "--run-dir", str(directory), "--updates", str(updates)]
    arguments += ["--seeds", *map(str, config.seeds), "--log-interval", "1000", "--quiet", *options, *own]
    code = train.main([*arguments, "--start-or-resume"])
    if code > 128:  # a signal stopped it, as it has said
        sys.exit(code)
    if code:
        raise RuntimeError(f"sorl.train of {directory} ended with code {code}; see its message above.")
    metrics = read_metrics(directory)
    last, warned = {row["seed"]: row for row in metrics if row["step"] == updates}, departures(metrics)
    rows = []
    for seed in config.seeds:
        policy = load_policy(policy_path(directory, seed))
        if policy.provenance["step"] != updates:
            raise ValueError(f"{directory} is at {policy.provenance['step']} updates, not {updates}; remove it.")
        row = {"kind": name, "setting": setting, "options": config.options, "seed": seed, "updates": updates}
        row |= play(KINDS[name], functools.partial(_decide, policy, jax.random.key(seed)), config.episodes)
        row |= {metric: last[seed][f"training/{metric}"] for metric in SHOWN if f"training/{metric}" in last[seed]}
        rows.append(row | {"warned": seed in warned})
    return rows


def _decide(policy: Policy, key: Any, observations: Any, step: int) -> Any:
    return policy(observations, key=jax.random.fold_in(key, step))


SHOWN = ("q_mean", "policy_q_mean", "value_excess")
"""The metrics of the last row that the table shows."""
KEY = ("kind", "setting", "options", "seed", "updates")
"""The columns that identify a row of the table."""


def _print(rows: Sequence[Row]) -> None:
    for row in rows:
        q, policy_q = (f"{row[name]:.4g}" if name in row else "-" for name in ("q_mean", "policy_q_mean"))
        print(
            f"{row['kind']:<16}{row['setting']:<60}{row.get('updates', ''):>6} return {row['return']:>7.2f} "
            f"reached {row['reached']:.2f} Q {q} policy's {policy_q}{' WARNED' if row.get('warned') else ''}",
            flush=True,
        )


def _write(path: Path, rows: Sequence[Row]) -> None:
    earlier = read_json(path)["rows"] if path.exists() else []
    kept = {tuple(row.get(name) for name in KEY): row for row in [*earlier, *rows]}
    write_json(path, {"machine": machine(), "rows": list(kept.values())})


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text)


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, with_joined_options(sys.argv[1:]), prog="python benchmarks/own_logs.py"))
