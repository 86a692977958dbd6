"""Does a change move any bit? `python benchmarks/seal.py OUT.json [BEFORE.json]` writes digests of all trainings."""

import os


os.environ["JAX_PLATFORMS"] = "cpu"

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("seal", stopped="the same command continues")

import dataclasses
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from sorl import Budget, load_policy
from sorl.agents import AGENTS
from sorl.config.options import read_config
from sorl.functional.verifiers import Min, Softmax
from sorl.system import command_line
from sorl.system.files import read_json, write_json
from sorl.train import __main__ as train, loop
from sorl.train.checkpoints import Checkpoints


ENV = "pointmaze-medium-navigate-singletask-task1-v0"
SIZES = {
    "hidden_sizes": (16, 16),
    "critic_hidden_sizes": (16, 16),
    "flow_steps": 2,
    "width": 8,
    "blocks": 1,
    "denoising_steps": 2,
    "backup_candidates": 2,
    "pretraining_updates": 50,
    "candidates": 3,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Writes digests of a training of every agent, and compares them with those of before a change.

    Each agent trains for 300 updates with two seeds on random data in OGBench's format (pointmaze-medium), through the
    command line of sorl.train, with an evaluation of 4 episodes. With BEFORE, prints the differences; the exit code is
    1 if there are any. Agents that OUT already has are skipped; remove the file to start over. Digests are comparable
    only on the same machine and with the same version of jax.
    """

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """JSON file of the digests."""
    before: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="BEFORE")] = None
    """JSON file of the digests of before; default: none."""


def digest(*arrays) -> str:
    """A digest of the dtypes, shapes and bits of arrays, or of texts."""
    found = hashlib.sha256()
    for array in arrays:
        if hasattr(array, "dtype") and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            array = jax.random.key_data(array)
        array = np.asarray(array)
        found.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()[:16]


def write_data(directory: Path) -> None:
    """Writes random positions and actions with the sizes of the maze's data."""
    for name, trajectories, seed in (("", 8, 0), ("-val", 2, 1)):
        random, length = np.random.default_rng(seed), 50
        rows = trajectories * length
        position = random.uniform(0, 20, (rows, 2)).astype(np.float32)
        position[::7] = (20.2, 19.9)  # the goal
        np.savez(
            directory / f"pointmaze-medium-navigate-v0{name}.npz",
            observations=position,
            actions=random.uniform(-1, 1, (rows, 2)).astype(np.float32),
            terminals=np.arange(rows) % length == length - 1,
            qpos=position,
            qvel=np.zeros_like(position),
        )


def options(agent) -> list[str]:
    """The agent's name and small sizes, as arguments of the command line."""
    name = agent.__name__
    words = ["agent:" + "".join(f"-{x.lower()}" if x.isupper() else x for x in name).lstrip("-")]
    known = {field.name for field in dataclasses.fields(agent)}
    for key, value in SIZES.items():
        if key in known:
            words += ["--agent." + key.replace("_", "-"), *map(str, value if isinstance(value, tuple) else (value,))]
    return words


def budgets(actor) -> list[Budget]:
    """All budgets of the final table, and one budget with each other option."""
    own = actor.budgets
    found = [*own.grid(None, None, final=True), dataclasses.replace(own.usual, noise_scale=0.5)]
    if own.other_inference_steps:
        found.append(dataclasses.replace(own.usual, inference_steps=3))
    if own.other_candidates:
        found.append(dataclasses.replace(own.usual, candidates=4))
    if own.other_verifiers:
        steps = 2 if own.other_inference_steps else own.usual.inference_steps
        found += [Budget(steps, 4, verifier=Min()), Budget(steps, 4, verifier=Softmax(0.5))]
        if own.other_inference_steps:
            found.append(Budget(4, 2, policy_conditioning=2, critic_conditioning=1))
    return list(dict.fromkeys(found))


def label(budget: Budget) -> str:
    """A budget as version 0.1.0 showed it, so that seals of any version can be compared."""
    shown = repr(dataclasses.replace(budget, verifier=None))
    if budget.verifier is None:
        return shown
    asked = budget.verifier
    old = f"softmax_temperature={asked.temperature}" if isinstance(asked, Softmax) else f"q_aggregation={asked.name!r}"
    return f"{shown[:-1]}, {old})"


def seal(agent, directory: Path, data: Path) -> dict:
    """Trains one agent, and **returns** digests of its state, metrics, actions and evaluation."""
    # Train through the command line, at the largest budgets that the agent supports.
    own = agent().actor.budgets
    steps = ["1", "4"] if own.other_inference_steps else [str(own.inference_steps[0])]
    candidates = ["1", "4"] if own.other_candidates else [str(own.candidates[0])]
    words = [
        "--env", ENV, *options(agent), "--data-dir", str(data), "--run-dir", str(directory),
        "--seeds", "0", "1", "--updates", "300", "--batch-size", "32", "--log-interval", "50",
        "--checkpoint-interval", "150", "--seed-mapping", "map", "--evaluation.interval", "300",
        "--evaluation.episodes", "4", "--evaluation.workers", "4", "--evaluation.final-episodes", "4",
        "--evaluation.final-inference-steps", steps[-1], "--evaluation.final-candidates", candidates[-1],
        "--evaluation.inference-steps", steps[-1], "--evaluation.success-timing", "pre", "--quiet",
    ]  # fmt: skip
    code = train.main(words)
    if code > 128:  # a signal stopped it, as it has said
        sys.exit(code)
    if code:
        raise RuntimeError(f"sorl.train of {agent.__name__} ended with code {code}; see its message above.")
    config = read_config(directory / "config.json")
    # The whole state of the last checkpoint, optimisers and random keys included.
    state = train.load_data(config)
    template = loop.init(config.agent, state.train, config.seeds, batch_size=config.batch_size)
    with Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
        state = checkpoints.restore(template, 300)
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    columns = sorted({name for row in rows for name in row})
    random = np.random.default_rng(5)
    observations = random.uniform(0, 20, (5, 2)).astype(np.float32)
    # The actions of each saved policy, at every budget.
    actions = {}
    for seed in config.seeds:
        policy = load_policy(directory, seed)
        for budget in budgets(policy.actor):
            found = policy(observations, key=jax.random.key(3), budget=budget)
            actions[f"{seed} {label(budget)}"] = digest(found)
    played = read_json(directory / "evaluation.json")["rows"]
    return {
        "state": {jax.tree_util.keystr(path): digest(x) for path, x in jax.tree_util.tree_leaves_with_path(state)},
        "metrics": {name: digest(json.dumps([row.get(name) for row in rows])) for name in columns},
        "actions": actions,
        "evaluation": {
            f"{row['training_seed']} {row['inference_steps']} {row['candidates']}": digest(
                json.dumps([row[name] for name in ("episode_seeds", "success", "returns", "lengths")])
            )
            for row in played
        },
    }


def differences(before, after, where=""):
    """The paths at which two sets of digests differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            if name not in before or name not in after:
                yield f"{where}/{name} is only {'after' if name in after else 'before'}"
            else:
                yield from differences(before[name], after[name], f"{where}/{name}")
    elif before != after:
        yield f"{where} differs"


def main(config: Config) -> int:
    """Writes the digests of all agents, and compares them if asked to; **returns** the exit code."""
    before = None if config.before is None else read_json(config.before)
    found = read_json(config.out) if config.out.exists() else {}  # continues after an interruption
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        data.mkdir()
        write_data(data)
        for name, agent in AGENTS.items():
            if name in found:
                continue
            found[name] = seal(agent, Path(place) / name, data)
            print(f"sealed {name}", flush=True)
            write_json(config.out, found)
    if before is None:
        return 0
    lines = list(differences(before, found))
    new = [line for line in lines if line.startswith("/") and "/actions/" in line and line.endswith("is only after")]
    if new:
        print(f"{len(new)} budgets are new.")
        lines = [line for line in lines if line not in new]
    print("\n".join(lines) or "No bit moved.")
    return 1 if lines else 0


def command() -> int:
    """Runs the command line."""
    return main(command_line.parse(Config, prog="python benchmarks/seal.py"))
