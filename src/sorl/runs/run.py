"""Writing and reading a run directory: its options and policies."""

import dataclasses
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sorl.agents import AbstractAgent
from sorl.agents.modules import module_option
from sorl.config.json_form import to_json
from sorl.config.options import TrainConfig, read_config
from sorl.data.normalisation import Normalisation
from sorl.data.recorded.origin import refuse_other_order
from sorl.policy import Policy, load_policy, policy_path, seed_record
from sorl.policy.file import FORMAT, SUFFIX, find_policy
from sorl.pretrained.store import is_name, own_index
from sorl.runs.lone import recorded_config
from sorl.runs.phases import phases
from sorl.statistics.rows import settings_text
from sorl.system.files import begins_with, make_directory, read_json, write_json


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained run: its options and one policy per training seed, or per member of its population.

    A lone policy is a run of one policy, with the options that its own record has.
    """

    directory: Path
    """The run directory, or the file of a lone policy."""
    config: TrainConfig
    policies: dict[int, Policy]
    """The policies by training seed; those of a population by the member's number (see `config.members`)."""
    step: int
    """Number of updates of the policies, except those of bad seeds (see `steps`)."""
    data: dict[str, Any]
    """The provenance of the data."""
    steps: dict[int, int] = dataclasses.field(default_factory=dict)
    """Number of updates of each seed's (or member's) policy; a bad seed keeps an older policy."""
    bad_seeds: tuple[int, ...] = ()
    """Seeds (or members) that stopped training because a loss was not finite."""

    @property
    def agent(self) -> AbstractAgent:
        """The algorithm and its hyper-parameters."""
        return self.config.agent

    @property
    def home(self) -> Path | None:
        """The run directory, where results are written; None for a lone policy, which has none."""
        return None if self.directory.is_file() else self.directory

    @property
    def env(self) -> str:
        """The name of the environment; raises a `ValueError` if there is none."""
        if self.config.env is None:
            raise ValueError(
                f"{self.directory} was trained on logs without an environment, so no episode can be played; name one "
                "with --env (of sorl.evaluate or sorl.scaling), or give a run that was trained with --env."
            )
        return self.config.env

    def in_environment(self, env: str | None) -> "Run":
        """The same run with an environment to evaluate in; a run that was trained with an environment keeps it.

        Raises a `ValueError` if it was trained with another environment, or if this one may give the observations of
        its logs in another order.
        """
        if env is None or env == self.config.env:
            return self
        if self.config.env is not None:
            raise ValueError(f"{self.directory} was trained with the environment {self.config.env}; leave --env out.")
        refuse_other_order(env, self.data)
        return dataclasses.replace(self, config=dataclasses.replace(self.config, env=env))

    def chosen(self, seeds: Sequence[int] | None) -> dict[int, Policy]:
        """The policies of the given training seeds, or members of a population (None: of all good ones).

        Raises a `ValueError` if none is named, if one of them has no policy, or if there is no good one.
        """
        noun = "member" if self.config.population else "training seed"
        if seeds is None:
            seeds = [seed for seed in self.policies if seed not in self.bad_seeds]
            if not seeds:
                raise ValueError(
                    f"{self.directory} has no good {noun}: the losses of all became non-finite; train again with a "
                    f"lower agent.learning_rate, or name a {noun.split()[-1]} to use its last good policy."
                )
            # A bad seed may have none, but the results of a good one must not be lost without a word.
            if lost := [seed for seed in self.config.members if seed not in (*self.policies, *self.bad_seeds)]:
                raise ValueError(
                    f"{self.directory} has no policy of {noun.split()[-1]} {', '.join(map(str, lost))}; restore it "
                    "from a copy, or continue the run with --resume, which writes it, or name the others with --seeds."
                )
        if not seeds:
            raise ValueError(f"No {noun} is named; give at least one of {list(self.policies)}, or leave --seeds out.")
        missing = [seed for seed in seeds if seed not in self.policies]
        if missing:
            raise ValueError(f"{self.directory} has no {noun}s {missing}; it has {list(self.policies)}.")
        return {seed: self.policies[seed] for seed in seeds}

    def chosen_alike(self, seeds: Sequence[int] | None) -> dict[int, Policy]:
        """The policies as `chosen` gives them, for results that are means over seeds.

        Raises a `ValueError` if they are members of a population with different hyper-parameters.
        """
        found, members = self.chosen(seeds), self.config.members
        first = members[next(iter(found))].settings
        if any(members[number].settings != first for number in found):
            alike = [number for number in self.policies if members[number].settings == first]
            raise ValueError(
                f"{self.directory} is a population, and members with different hyper-parameters have no common mean; "
                f"name those of one value, such as --seeds {' '.join(map(str, alike))} ({settings_text(first)})."
            )
        return found

    def policy_path(self, seed: int) -> Path:
        """The policy file of a training seed, or of a member of a population."""
        return self.directory if self.home is None else policy_file(self.directory, self.config, seed)

    def step_of(self, seed: int) -> int:
        """Number of updates of a training seed's policy."""
        return self.steps.get(seed, self.step)

    def left_out(self, seeds: Sequence[int] | None) -> str:
        """One sentence about the bad seeds that `chosen` leaves out; empty if there are none."""
        bad = [seed for seed in self.bad_seeds if seed in self.policies] if seeds is None else []
        kind = "member" if self.config.population else "seed"
        return seed_record.left_out(bad, self.steps, kind) if bad else ""


def config_path(directory: Path) -> Path:
    """The path of a run's `config.json`, the options that repeat the run."""
    return directory / "config.json"


def create(directory: Path, config: TrainConfig) -> None:
    """Creates a run directory with `config.json`, so that a killed run can be resumed.

    Raises a `FileExistsError` if the directory already holds a run.
    """
    refuse_existing(directory)
    make_directory(directory)
    write_json(config_path(directory), to_json(config))


def refuse_existing(directory: Path) -> None:
    """Raises a `FileExistsError` if the directory already holds a run."""
    if any((directory / name).exists() for name in ("config.json", "checkpoints", "metrics.jsonl")):
        raise FileExistsError(
            f"{directory} holds a run already; add --resume to continue it, or give another --run-dir."
        )


def update_config(directory: Path, config: TrainConfig) -> None:
    """Writes `config.json` if the options have changed, such as the number of updates."""
    path, options = config_path(directory), to_json(config)
    if not path.exists() or read_json(path) != json.loads(json.dumps(options)):
        write_json(path, options)


def save_policies(directory: Path, config: TrainConfig, policies: dict[int, Policy], step: int) -> None:
    """Writes one policy file per seed or member, atomically; a file that already holds the policy is not rewritten."""
    recorded = read_json(directory / "versions.json")
    for number, policy in policies.items():
        path, member = policy_file(directory, config, number), config.members[number]
        about = {"env": config.env, "step": step, "agent": to_json(member.agent), "versions": recorded}
        policy = dataclasses.replace(policy, provenance=about | member.columns())
        if not _holds(path, policy):
            policy.save(path)


def policy_file(directory: Path, config: TrainConfig, seed: int) -> Path:
    """The policy file of a training seed, or of a member of a population, in a run directory."""
    return policy_path(directory, seed, config.members[seed].kind)


def normalisation(directory: Path, config: TrainConfig, *, new_phase: bool) -> Normalisation | None:
    """The normalisation that a run on own logs started with and keeps in every later phase.

    **Returns:** the normalisation of the run's policies. None means that of the loaded data: for OGBench's data, and if
    no policy file can be read.

    Raises a `ValueError` if no policy file can be read and the run has, or is about to begin, more than one phase.
    """
    if config.data.path is None:
        return None
    for seed in config.members:
        try:
            return load_policy(policy_file(directory, config, seed)).normalisation
        except (FileNotFoundError, ValueError):  # the file is missing or damaged
            continue
    if new_phase or len(phases(directory)) > 1:
        raise ValueError(f"{directory} has no readable policy file, whose units are needed; restore one from a copy.")
    return None


def _holds(path: Path, policy: Policy) -> bool:
    """Whether the file already holds this policy at this step; it may also hold scores, which must not be lost."""
    try:
        found = load_policy(path)
    except (FileNotFoundError, ValueError):  # it is missing or damaged, and so must be written
        return False
    return found.provenance.get("step") == policy.provenance["step"] and found.digest == policy.digest


def refuse_no_run(directory: Path) -> None:
    """Raises a `FileNotFoundError`, one sentence, unless `directory` is a run directory."""
    if config_path(directory).exists():
        return
    remedy = "give the run directory that sorl.train printed"
    if directory.is_file() and directory.suffix == SUFFIX:
        found, remedy = f"{directory} is a policy file", "give the run directory that it is in"
    elif directory.is_file():
        found = f"{directory} is a file"
    elif directory.is_dir():
        found = f"{directory} holds no config.json"
    elif str(directory) in own_index().entries:
        found = f"{directory} is a pretrained policy, not a run"
        remedy = "sorl.evaluate, sorl.scaling, sorl.policy, sorl.export and sorl.assess take it"
    else:
        found = f"There is no directory {directory}"
    raise FileNotFoundError(f"{found}; {remedy}.")


def load_run(directory: str | os.PathLike[str]) -> Run:
    """Reads a run directory, or a lone policy by its file or pretrained name.

    Raises a `FileNotFoundError` if there is no run or no policy yet, and a `ValueError` if a lone policy has no record
    of its run.
    """
    directory = Path(directory)
    is_policy = is_name(directory) or directory.suffix == SUFFIX or begins_with(directory, f"{FORMAT} ".encode())
    if not directory.is_dir() and is_policy:
        return _lone_run(find_policy(directory, None))
    refuse_no_run(directory)
    config = read_config(config_path(directory))
    seeds = [seed for seed in config.members if policy_file(directory, config, seed).exists()]
    if not seeds:
        resume = f"python -m sorl.train --run-dir {shlex.quote(str(directory))} --resume"
        wait = "; " if (directory / "checkpoints").exists() else " yet; wait for the first checkpoint, or "
        remedy = f"{wait}continue the run with {resume}{module_option(type(config.agent))}, which writes them"
        if len(phases(directory)) > 1:  # whose units are those of the first phase, and only the policies have them
            remedy = "; restore one from a copy"
        raise FileNotFoundError(f"{directory} holds no policy{remedy}.")
    policies = {seed: _own_policy(policy_file(directory, config, seed), config, seed) for seed in seeds}
    steps = {seed: policy.provenance["step"] for seed, policy in policies.items()}
    return Run(
        directory=directory,
        config=config,
        policies=policies,
        step=max(steps.values()),
        data=policies[seeds[0]].provenance["versions"]["data"],
        steps=steps,
        bad_seeds=tuple(sorted(seed_record.find_bad_seeds(directory, steps))),
    )


def _own_policy(path: Path, config: TrainConfig, seed: int) -> Policy:
    """Loads a policy; raises a `ValueError` if its record lacks the run, or is of another one, seed or member."""
    policy = load_policy(path)
    remedy = "restore the file from a copy, or continue the run with --resume, which writes it again"
    try:
        _ = policy.provenance["step"], policy.provenance["versions"]["data"]
    except (KeyError, TypeError) as error:  # a policy that was made in Python and saved here
        raise ValueError(
            f"{path} has no record of its run ({error.args[0]}), as policies of sorl.train have; {remedy}."
        ) from error
    for name, own in ({"env": config.env} | config.members[seed].columns()).items():
        found = policy.provenance.get(name, own)
        if found != own:
            raise ValueError(
                f"{path} is a policy of another run: its {name} is {found!r} instead of {own!r}; {remedy}."
            )
    return policy


def _lone_run(path: Path) -> Run:
    """A run of one policy."""
    policy = load_policy(path)
    config, record = recorded_config(policy, path), policy.provenance
    return Run(path, config, {config.seeds[0]: policy}, record.get("step", 0), record["versions"]["data"])
