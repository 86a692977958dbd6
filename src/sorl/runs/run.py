"""A run directory: what it holds, and how it is read back."""

import dataclasses
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import PyTree

from sorl.agents import AbstractAgent
from sorl.config.json_form import to_json
from sorl.config.options import TrainConfig, read_config
from sorl.data.normalisation import Normalisation
from sorl.policy import Policy, load_policy, policy_path, seed_record
from sorl.runs.phases import phases
from sorl.runs.versions import numerics, versions
from sorl.system.files import make_directory, read_json, write_json


@dataclasses.dataclass(frozen=True)
class Run:
    """A run as evaluation and reports need it: its options and one trained policy per seed."""

    directory: Path
    config: TrainConfig
    policies: dict[int, PyTree]
    """Networks by training seed."""
    normalisation: Normalisation
    step: int
    """Updates that the policies of good seeds were trained for."""
    data: dict[str, Any]
    """Where the data came from."""
    steps: dict[int, int] = dataclasses.field(default_factory=dict)
    """Updates behind each seed's policy where they differ from `step`: a bad seed keeps an older policy."""
    bad_seeds: tuple[int, ...] = ()
    """Seeds that stopped training because a loss was not finite."""

    @property
    def agent(self) -> AbstractAgent:
        """The algorithm and its hyper-parameters."""
        return self.config.agent

    @property
    def env(self) -> str:
        """The environment to play in; raises a `ValueError` if there is none."""
        if self.config.env is None:
            raise ValueError(
                f"{self.directory} was trained on logs without an environment, so no episode can be played; give a run "
                "that was trained with --env."
            )
        return self.config.env

    def chosen(self, seeds: Sequence[int] | None) -> dict[int, PyTree]:
        """The policies of these training seeds, or of all good ones; raises a `ValueError` if there is none."""
        if seeds is None:
            seeds = [seed for seed in self.policies if seed not in self.bad_seeds]
            if not seeds:
                raise ValueError(
                    f"{self.directory} has no good training seed: the losses of all became non-finite; train again "
                    "with a lower agent.learning_rate, or name a seed to use its last good policy."
                )
        missing = [seed for seed in seeds if seed not in self.policies]
        if missing:
            raise ValueError(f"{self.directory} has no training seeds {missing}; it has {list(self.policies)}.")
        return {seed: self.policies[seed] for seed in seeds}

    def step_of(self, seed: int) -> int:
        """Updates behind the policy of a training seed."""
        return self.steps.get(seed, self.step)

    def left_out(self, seeds: Sequence[int] | None) -> str:
        """One sentence about the bad seeds that `chosen` leaves out, or an empty string."""
        bad = [seed for seed in self.bad_seeds if seed in self.policies] if seeds is None else []
        return seed_record.left_out(bad, self.steps) if bad else ""


def config_path(directory: Path) -> Path:
    """The options that make the run again."""
    return directory / "config.json"


def create(directory: Path, config: TrainConfig) -> None:
    """Makes a run directory with `config.json`, so that a run that is killed can be resumed.

    Raises a `FileExistsError` if there is a run in it already.
    """
    refuse_existing(directory)
    make_directory(directory)
    write_json(config_path(directory), to_json(config))


def record_versions(
    directory: Path, config: TrainConfig, provenance: dict[str, Any], *, step: int = 0, new_phase: bool = False
) -> None:
    """Writes `versions.json`; a run that is resumed under other versions adds those.

    **Arguments:** `provenance` of the data; `step` that the run continues from; `new_phase`, whether it continues on
    other data, which are recorded with the step.

    That the data may be these is checked before (`sorl.train.resuming.restore`).
    """
    path, now = directory / "versions.json", versions(config)
    if not path.exists():
        write_json(path, now | {"data": provenance})
        return
    recorded = read_json(path)
    before = [phase for phase in phases(directory) if phase["from_step"] <= step]
    if new_phase:
        before = [phase for phase in before if phase["from_step"] < step] or before[:1]
        before.append({"from_step": step, "data": provenance})
    updated = dict(recorded)
    if any(_sessions(directory)[-1].get(name) != value for name, value in now.items()):
        updated["resumed"] = [*recorded.get("resumed", []), now]
    if before[1:] or "phases" in recorded:
        updated["phases"] = before[1:]
    if updated != recorded:
        write_json(path, updated)


def refuse_other_numerics(directory: Path) -> None:
    """Raises a `ValueError` if JAX is configured to compute other numbers than when the run began.

    Version 0.1.0 did not record how it was configured; the first later session that continued its run did.
    """
    sessions = _sessions(directory)
    for name, value in numerics().items():
        before = next((session[name] for session in sessions if name in session), value)
        if before != value:
            raise ValueError(
                f"The run in {directory} was trained with {name} = {before!r}, and here it is {value!r}; set it back "
                f"(the environment variable {name.upper()} may change it) to continue."
            )


def _sessions(directory: Path) -> list[dict[str, Any]]:
    """What `versions.json` records of the start of a run and of each later session under other versions."""
    path = directory / "versions.json"
    recorded = read_json(path)
    later = recorded.get("resumed", [])
    if not isinstance(later, list) or not all(isinstance(one, dict) for one in later):
        raise ValueError(f"{path} does not say under which versions the run was resumed; put a copy of it back.")
    return [recorded, *later]


def refuse_existing(directory: Path) -> None:
    """Raises a `FileExistsError` if there is a run in the directory already."""
    if any((directory / name).exists() for name in ("config.json", "checkpoints", "metrics.jsonl")):
        raise FileExistsError(
            f"{directory} holds a run already; add --resume to continue it, or give another --run-dir."
        )


def update_config(directory: Path, config: TrainConfig) -> None:
    """Writes the options of a run where they are new, such as its number of updates."""
    path, options = config_path(directory), to_json(config)
    if not path.exists() or read_json(path) != json.loads(json.dumps(options)):
        write_json(path, options)


def save_policies(
    directory: Path, config: TrainConfig, networks: dict[int, PyTree], normalisation: Normalisation, step: int
) -> None:
    """Writes one policy file per seed, whole or not at all, but leaves alone one that is this policy already."""
    recorded = read_json(directory / "versions.json")
    for seed, one in networks.items():
        provenance = {"env": config.env, "seed": seed, "step": step, "versions": recorded}
        path, policy = policy_path(directory, seed), Policy(config.agent, one, normalisation, provenance)
        if not _holds(path, policy):
            policy.save(path)


def normalisation(directory: Path, config: TrainConfig, *, new_phase: bool) -> Normalisation | None:
    """The units that a run on own logs began with, and keeps whatever it is continued on.

    **Returns:** those of its policies; None where they are the data's own: of OGBench's, or where no policy is whole.
    Raises a `ValueError` if no policy is whole and there are, or will be, data of more than one phase.
    """
    if config.data.path is None:
        return None
    for seed in config.seeds:
        try:
            return load_policy(policy_path(directory, seed)).normalisation
        except (FileNotFoundError, ValueError):  # none, or damaged
            continue
    if new_phase or len(phases(directory)) > 1:
        raise ValueError(
            f"{directory} has no policy file that can be read, and its units are needed; put a copy of one back."
        )
    return None


def _holds(path: Path, policy: Policy) -> bool:
    """Whether the file is this policy at this step already; it may hold scores besides, which are not to be lost."""
    try:
        found = load_policy(path)
    except (FileNotFoundError, ValueError):  # none, or damaged: to be written
        return False
    return found.provenance.get("step") == policy.provenance["step"] and found.digest == policy.digest


def refuse_no_run(directory: Path) -> None:
    """Raises a `FileNotFoundError`, one sentence, for anything but a run directory."""
    if config_path(directory).exists():
        return
    remedy = "give the run directory that sorl.train printed"
    if directory.is_file():
        kind, remedy = (
            ("policy file", "give the run directory that it is in") if directory.suffix == ".sorl" else ("file", remedy)
        )
        raise FileNotFoundError(f"{directory} is a {kind}; {remedy}.")
    found = f"{directory} holds no config.json" if directory.is_dir() else f"There is no directory {directory}"
    raise FileNotFoundError(f"{found}; {remedy}.")


def load_run(directory: str | os.PathLike[str]) -> Run:
    """Reads a run directory; raises a `FileNotFoundError` if it holds no run, or none with a policy yet."""
    directory = Path(directory)
    refuse_no_run(directory)
    config = read_config(config_path(directory))
    seeds = [seed for seed in config.seeds if policy_path(directory, seed).exists()]
    if not seeds:
        raise FileNotFoundError(
            f"{directory} holds no policy yet; wait for the first checkpoint, or continue the run with "
            f"python -m sorl.train --run-dir {shlex.quote(str(directory))} --resume."
        )
    policies = {seed: load_policy(policy_path(directory, seed)) for seed in seeds}
    first, steps = policies[seeds[0]], {seed: policy.provenance["step"] for seed, policy in policies.items()}
    return Run(
        directory=directory,
        config=config,
        policies={seed: policy.networks for seed, policy in policies.items()},
        normalisation=first.normalisation,
        step=max(steps.values()),
        data=first.provenance["versions"]["data"],
        steps=steps,
        bad_seeds=tuple(sorted(seed_record.find_bad_seeds(directory, steps))),
    )
