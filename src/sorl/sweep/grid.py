"""The description of a sweep, and the runs that it means."""

import dataclasses
import fnmatch
import hashlib
import itertools
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_type_hints

import tyro

from sorl.agents import AbstractAgent
from sorl.agents.modules import import_modules
from sorl.agents.shared.published import ENVIRONMENTS, environment_of
from sorl.config.json_form import to_json
from sorl.config.options import TrainConfig
from sorl.environments.named import is_ogbench
from sorl.environments.names import TASKS, Task, matching
from sorl.runs.sweeps import SweepRun
from sorl.system.names import nearest
from sorl.system.ranges import refuse_outside
from sorl.train.cli import RunOptions, agent_words, parse, with_absolute_paths
from sorl.train.resuming import FREE


MAX_RUNS = 100_000
MAX_NAME = 120
"""The most characters of a directory's name; longer ones are cut and end with a digest."""
SWITCH = ("True", "False", "true", "false")
"""The values that turn a switch on and off."""
PAPER = "paper"
"""The word for the forty tasks of the paper."""

OWN = {"env", "seeds", "preset", "run-dir", "config", "resume", "start-or-resume", "from-step", "new-phase"}
"""Options of `sorl.train` that a sweep sets itself."""

SWITCHES = ("--tensorboard", "--wandb", "--no-compilation-cache")
"""Options of `sorl.train` that a run may have beside its configuration and modules of agents."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """The runs of a sweep: every agent on every environment, with every group of seeds and every choice of values."""

    agents: tuple[str, ...] = ("sorl",)
    """Agents by their names in `sorl.train` ("*" means all), each optionally followed by its own options, such as
    "sorl --agent.no-critic-sees-steps"."""
    envs: tuple[str, ...] = ()
    """Environments: OGBench's names of tasks, patterns such as "cube-*", beginnings of five tasks such as
    cube-single-play, "paper" for the forty tasks of the paper, or MODULE:ID of Gymnasium with own logs. Without any,
    the quickstart's."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds."""
    group: int = 1
    """Number of seeds that one run trains together."""
    set: tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]] = ()
    """An option of `sorl.train` and its values, such as agent.q-coefficient 10 50 100; may be given several times. A
    value of several words is quoted: agent.hidden-sizes "128 128" "256 256"."""
    preset: Literal["quickstart", "paper"] | None = None
    """The settings of all runs, as in `sorl.train`; default: the published ones if environments are given."""
    options: str = ""
    """More options of `sorl.train` for all runs, such as "--updates 1000"."""
    agent_module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Module, or Python file, that registers an agent of your own; it is imported first. May be given several times."""

    def __post_init__(self):
        refuse_outside(self, group=(1, 1024))
        if not self.agents or not self.seeds:
            raise ValueError("A sweep needs at least one agent and one seed; give --agents and --seeds.")
        for name, given in (("agents", self.agents), ("envs", self.envs), ("seeds", self.seeds)):
            if len(set(given)) < len(given):
                raise ValueError(f"The {name} are {', '.join(map(str, given))}; give each once.")
        names = [words[0].replace("_", "-") for words in self.set if words]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"--set {twice[0]} is given more than once; give all of its values behind one.")
        for words in self.set:
            name, values = (words[0], words[1:]) if words else ("", ())
            if not name:
                raise ValueError("--set has no option; name it without dashes before its values: agent.chunk 1 5.")
            if not values:
                raise ValueError(f"--set {name} has no value; give one or more, such as --set updates 1000 2000.")
            if name in OWN:
                raise ValueError(f"--set {name} is set by the sweep itself; use its own options (--help lists them).")


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep, with its options."""

    run: SweepRun
    config: TrainConfig
    """The options of the run, from which it can be repeated."""


@dataclasses.dataclass(frozen=True)
class _Parsed:
    """What a command line of `sorl.train` means."""

    config: TrainConfig
    words: tuple[str, ...]
    """Options that are not part of the configuration."""
    source: str
    """One sentence on the source of the settings."""


def expand(grid: Grid) -> list[PlannedRun]:
    """The runs of a grid, by seeds first, so that a sweep that is stopped early has every agent equally often.

    Raises a `ValueError`, one sentence, for an unknown agent, environment or option (with the nearest names), for a
    value out of range, and for two equal runs.
    """
    import_modules(grid.agent_module)
    agents, envs = _agents(grid.agents), _environments(grid.envs)
    groups = [grid.seeds[start : start + grid.group] for start in range(0, len(grid.seeds), grid.group)]
    choices = list(itertools.product(*([(name, value) for value in values] for name, *values in grid.set)))
    count = len(groups) * len(envs) * len(agents) * len(choices)
    if count > MAX_RUNS:
        raise ValueError(f"The sweep has {count} runs; give at most {MAX_RUNS}.")
    # Tasks of one environment and seeds share all other options, which take a while to parse.
    parsed: dict[Any, _Parsed] = {}
    runs: dict[str, PlannedRun] = {}
    equal: dict[Any, PlannedRun] = {}
    for seeds, env, agent, choice in itertools.product(groups, envs, agents, choices):
        kind = agent, None if env is None else environment_of(env), choice
        if kind not in parsed:
            parsed[kind] = _parse(grid, agent, env, dict(choice))
        config = dataclasses.replace(parsed[kind].config, seeds=seeds)
        config = config if env is None else dataclasses.replace(config, env=env)
        planned = _planned(agent, dict(choice), dataclasses.replace(parsed[kind], config=config))
        if planned.run.directory in runs:
            raise ValueError(
                f"Two runs of the sweep are {planned.run.title}; give each agent, environment, seed and value once."
            )
        runs[planned.run.directory] = planned
        other = equal.setdefault((agent, json.dumps(to_json(planned.config))), planned)
        if other is not planned:
            raise ValueError(f"{other.run.title} and {planned.run.title} have the same settings; give each value once.")
    return list(runs.values())


def with_joined_options(words: Sequence[str]) -> list[str]:
    """A command line in which `--options "--updates 9"` is `--options="--updates 9"`, as a parser needs it."""
    joined: list[str] = []
    for word in words:
        if joined[-1:] == ["--options"]:
            joined[-1] = f"--options={word}"
        else:
            joined.append(word)
    return joined


def settings_digest(config: TrainConfig) -> str:
    """A digest of the options that a run's numbers depend on, except its seeds: 16 hexadecimal digits."""
    options = to_json(config)
    for name in {"seeds", *FREE} - {"updates", "data.columns"}:  # another mapping file may be other data
        *path, last = name.split(".")
        part = options
        for key in path:
            part = part[key]
        del part[last]
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]


def _agents(names: Sequence[str]) -> list[str]:
    """The agents, with patterns replaced by the names that they match."""
    known = [name.removeprefix("agent:") for name in agent_words()]
    found: list[str] = []
    for given in names:
        words = _split(given)
        name, options = (words[0], words[1:]) if words else ("", [])
        matched = fnmatch.filter(known, name)
        if not matched:
            raise ValueError(f"There is no agent {name!r}{nearest(name, known)}; give some of {', '.join(known)}.")
        found += [shlex.join([one, *options]) for one in matched]
    return list(dict.fromkeys(found))


def _environments(names: Sequence[str]) -> list[str | None]:
    found: list[str | None] = []
    for name in names:
        if name == PAPER:
            found += [Task.parse(f"{env}-singletask-task{n}-v0").env_name for env in ENVIRONMENTS for n in TASKS]
        else:
            found += matching(name) if is_ogbench(name) else [name]
    return list(dict.fromkeys(found)) or [None]


def _parse(grid: Grid, agent: str, env: str | None, values: dict[str, str]) -> _Parsed:
    name, *own = _split(agent)
    words = [*own, *_split(grid.options)]
    for option, value in values.items():
        kind = _kind(option, agent_words()[f"agent:{name}"])
        if kind is bool and value not in SWITCH:
            raise ValueError(f"--set {option} is {value!r}; give True or False.")
        switch = kind in (None, bool)
        words += _option(option, value) if switch else [f"--{option}", *_split(value)]
    modules = [word for module in grid.agent_module for word in ("--agent-module", module)]
    begin = [f"agent:{name}", *_option("env", env), *_option("preset", grid.preset)]
    try:
        config, options, source = parse([*begin, *words, *modules, "--seeds", str(grid.seeds[0])])
    except ValueError as error:
        raise ValueError(f"{agent}: {error}") from error
    logging = {name: getattr(options, name) for name in ("tensorboard", "wandb", "compilation_cache")}
    sets_own = options != RunOptions(preset=options.preset, **logging) or (env is not None and config.env != env)
    # The sweep's seeds, which come last, hide others from the parser.
    if sets_own or any(word.partition("=")[0] == "--seeds" for word in words):
        raise ValueError(
            f"The options {shlex.join(words)!r} set what the sweep sets itself; leave devices, directories, "
            "configurations, environments and seeds out."
        )
    switched = (options.tensorboard, options.wandb, not options.compilation_cache)
    modules += [switch for switch, on in zip(SWITCHES, switched, strict=True) if on]
    return _Parsed(with_absolute_paths(config), tuple(modules), source)


def _split(text: str) -> list[str]:
    """The words of a text, split and quoted as in a shell."""
    try:
        return shlex.split(text)
    except ValueError as error:
        reason = str(error).lower()
        raise ValueError(f"{text!r} cannot be split into words ({reason}); quote them as in a shell.") from None


def _option(name: str, value: str | None) -> list[str]:
    """An option and its value as words of a command line; True and False turn a switch on and off."""
    if value is None:
        return []
    if value in SWITCH:
        *path, last = name.split(".")
        return [f"--{'.'.join([*path, last if value in ('True', 'true') else f'no-{last}'])}"]
    return [f"--{name}", *_split(value)]


def _kind(option: str, agent: type[AbstractAgent]) -> Any:
    """The type of an option's values, or None if no configuration has the option."""
    hint: Any = TrainConfig
    for part in option.replace("-", "_").split("."):
        hint = agent if part == "agent" else get_type_hints(hint).get(part) if dataclasses.is_dataclass(hint) else None
    return hint


def _planned(agent: str, settings: dict[str, str], parsed: _Parsed) -> PlannedRun:
    config = parsed.config
    parts = ["_".join(word.strip("-") for word in _split(agent))]
    logs = "logs" if config.data.path is None else config.data.path.stem
    parts.append(config.env or logs)
    if settings:
        parts.append(",".join(f"{name}={value}" for name, value in settings.items()))
    parts.append(f"seed{'s' * (len(config.seeds) > 1)}-{'-'.join(map(str, config.seeds))}")
    run = SweepRun(
        directory="/".join(_file_names(parts)),
        agent=agent,
        env=config.env,
        seeds=config.seeds,
        policies=tuple(f"{member.kind}-{member.number}" for member in config.members.values()),
        settings=settings,
        updates=config.updates,
        evaluated=bool(config.evaluation.interval),
        digest=settings_digest(config),
        words=parsed.words,
        source=parsed.source,
    )
    return PlannedRun(run, config)


def _file_names(parts: Sequence[str]) -> Iterator[str]:
    """The parts as file names; one that had to be changed so that it could be another's ends with its digest."""
    for part in parts:
        plain = re.sub(r"[^\w.,=+-]+", "-", part, flags=re.ASCII)
        digest = hashlib.sha256(part.encode()).hexdigest()[:8]
        yield plain if plain == part and len(part) <= MAX_NAME else f"{plain[: MAX_NAME - 9]}-{digest}"
