"""The command line of `sorl.train`: its options, the source of their defaults, and checks of their combinations."""

import dataclasses
import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sorl.agents import AGENTS, AbstractAgent, Sorl
from sorl.agents.registry import load_entry_points, published_success, word
from sorl.agents.shared.published import environment_of
from sorl.config import presets
from sorl.config.changes import changes
from sorl.config.options import DataConfig, TrainConfig, read_config
from sorl.config.own_agents import OwnAgents
from sorl.data.sources import absolute
from sorl.runs import run as runs
from sorl.runs.phases import phases
from sorl.system import command_line, entry
from sorl.system.names import nearest
from sorl.train import resuming
from sorl.train.devices import DeviceOptions


PROG = "python -m sorl.train"
_HELP = {"-h", "--help"}


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Output and logging; none of these options changes the numbers."""

    run_dir: Path | None = None
    """Directory of the run; an existing run is never overwritten; default: runs/ENV_AGENT_TIME."""
    resume: bool = False
    """Continue the run in --run-dir from its last checkpoint, with the options it was started with."""
    start_or_resume: bool = False
    """Start the run in --run-dir, or continue it if it is there already, with the same options; for job scripts."""
    from_step: int | None = None
    """With --resume: the update of an older checkpoint to continue from; later updates are repeated; default: the last
    checkpoint."""
    new_phase: bool = False
    """With --resume and --data: continue on other logs, in the run's original units; the change is recorded."""
    config: Path | None = None
    """A run's config.json to take options from; options on the command line override them; default: none."""
    preset: Literal["quickstart", "paper"] | None = None
    """Source of the other defaults: paper (published settings; success judged after a step) or quickstart (small
    networks, generated data; success judged before a step); default: with --data, settings for own logs, which keep
    SORL close to the data; else paper with --env, and quickstart without."""
    tensorboard: bool = False
    """Also write TensorBoard events (pip install 'sorl[tensorboard]')."""
    wandb: bool = False
    """Also log to Weights & Biases (pip install 'sorl[wandb]'; WANDB_MODE=offline keeps it on this machine)."""
    compilation_cache: bool = True
    """Cache compiled programs in a private directory, which makes later starts faster."""
    quiet: bool = False
    """Hide the progress bar."""
    hardware: Annotated[DeviceOptions, tyro.conf.arg(name="")] = dataclasses.field(default_factory=DeviceOptions)
    """The devices to train on."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The whole command line."""

    own_agents: Annotated[OwnAgents, tyro.conf.arg(name="")]
    options: Annotated[RunOptions, tyro.conf.arg(name="")]
    train: Annotated[TrainConfig, tyro.conf.arg(name="")]


@dataclasses.dataclass(frozen=True)
class _Selection:
    """The options on which the defaults of all others depend."""

    own_agents: Annotated[OwnAgents, tyro.conf.arg(name="")] = dataclasses.field(default_factory=OwnAgents)
    options: Annotated[RunOptions, tyro.conf.arg(name="")] = dataclasses.field(default_factory=RunOptions)
    env: str | None = None
    data: Path | None = None


def agent_words() -> dict[str, type[AbstractAgent]]:
    """The words that choose an agent on the command line, such as `agent:fql`, and its class."""
    return {f"agent:{word(agent)}": agent for agent in AGENTS.values()}


def parse_devices(arguments: Sequence[str]) -> tuple[DeviceOptions, OwnAgents]:
    """The devices and the modules of agents that a command line names; its other options are not read.

    They are all that a process needs that is not the first of its run. With `--help`, the default devices.
    """
    selection, _ = _select(arguments)
    return DeviceOptions() if _HELP & set(arguments) else selection.options.hardware, selection.own_agents


def parse(arguments: Sequence[str]) -> tuple[TrainConfig, RunOptions, str]:
    """Parses a command line.

    **Returns:** the run's options, the options of its output, and one sentence about the source of the defaults. Raises
    a `ValueError`, one sentence, if options contradict each other.
    """
    # First the few options on which the defaults of all others depend, then those defaults.
    asked_for_help = _HELP & set(arguments)
    selection, rest = _select(arguments)
    selection.own_agents.load()
    load_entry_points()
    named = _named_agent(rest)
    default, source = _defaults(selection, named or Sorl)
    if named not in (None, type(default.agent)):
        raise ValueError(
            f"agent:{word(named)} is another agent than {type(default.agent).__name__}, whose options are "
            f"{source[:-1]}; leave one of the two out."
        )
    # The agent's word is moved to the front, so that its options may follow anywhere (without it tyro does not know
    # "--agent.no-.."). Help without an agent lists all of them.
    chosen = [] if asked_for_help and named is None else [f"agent:{word(type(default.agent))}"]
    if arguments.count("--population") > 1:  # the last one would silently replace the others
        raise ValueError("--population is given more than once; name all fields behind one.")
    parsed = command_line.parse(
        Arguments,
        chosen + [argument for argument in arguments if argument not in agent_words()],
        prog=PROG,
        choices=[] if named is None else chosen,
        description=f"{inspect.getdoc(TrainConfig)}\n\nDefaults shown: {source}\n\n{entry.EXIT_CODES}",
        default=Arguments(selection.own_agents, selection.options, default),
        config=(tyro.conf.CascadeSubcommandArgs,),
    )
    if not selection.options.resume:
        _refuse_contradictions(default, parsed.train)
    if parsed.options.start_or_resume:
        return parsed.train, _resumed_if_begun(parsed.options, parsed.train), source
    # A run may only be resumed with the options that it was started with, except for a few.
    if selection.options.resume:
        changed = changes(default, parsed.train) - resuming.FREE
        if parsed.train.updates < default.updates:
            raise ValueError(
                f"--updates is {parsed.train.updates} but the run was started with {default.updates}; give as many or "
                "more, or start a new run with --config."
            )
        if changed:
            raise ValueError(
                f"--resume continues a run with its own options, but {', '.join(sorted(changed))} differ from its "
                "config.json; leave them out, or start a new run with --config."
            )
    return parsed.train, parsed.options, source


def _select(arguments: Sequence[str]) -> tuple[_Selection, list[str]]:
    """The options on which others depend, and the arguments that are none of them."""
    words = [argument for argument in arguments if argument not in _HELP]
    return command_line.read(_Selection, words, prog=PROG, add_help=False)


def _refuse_contradictions(default: TrainConfig, train: TrainConfig) -> None:
    """Raises a `ValueError`, one sentence, if options of a new run contradict each other."""
    data = train.data
    if data.path is not None and data.episodes is not None:
        raise ValueError(
            f"data is {data.path} and data.episodes {data.episodes}, but a run trains on one or the other; add "
            "--data.episodes None to train on the logs."
        )
    # Here, because only the command line tells whether an option with a default was given.
    given = changes(default, train)
    for name in ("data.validation_fraction", "data.observation_margin"):
        if name in given and data.path is None:
            raise ValueError(f"{name} is for your own data; give --data too, or omit it.")
    if "data.generation_seed" in given and data.episodes is None:
        raise ValueError("data.generation_seed is for generated episodes; give --data.episodes too, or omit it.")
    varied = {one.field for one in train.population} & given
    if varied:
        raise ValueError(
            f"population varies {' and '.join(sorted(varied))}, which the command line also sets to one value; leave "
            "one of the two out."
        )


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Makes the paths absolute, so that the run can be resumed and repeated from any directory."""
    data = config.data
    found = {name: getattr(data, name) for name in ("path", "directory", "columns")}
    paths = {name: absolute(path) for name, path in found.items() if path is not None}
    return dataclasses.replace(config, data=dataclasses.replace(data, **paths))


def _resumed_if_begun(options: RunOptions, train: TrainConfig) -> RunOptions:
    """The options with `resume` set if --run-dir holds a run; raises a `ValueError` if that has other options."""
    if options.run_dir is None:
        raise ValueError("--start-or-resume needs the directory of the run; give --run-dir too.")
    path = runs.config_path(options.run_dir)
    if not path.exists():
        return options
    before = read_config(path)
    changed = changes(before, with_absolute_paths(train)) - resuming.FREE
    if train.updates < before.updates:
        changed.add("updates")
    if changed:
        raise ValueError(
            f"The run in {options.run_dir} was started with other options ({', '.join(sorted(changed))}); give the "
            "same, or another --run-dir."
        )
    return dataclasses.replace(options, resume=True)


def _named_agent(arguments: Sequence[str]) -> type[AbstractAgent] | None:
    known, given = agent_words(), [argument for argument in arguments if argument.startswith("agent:")]
    for one in given:
        if one not in known:
            raise ValueError(f"There is no {one}{nearest(one, [*known])}; give one of {', '.join(known)}.")
    named = {known[one] for one in given}
    if len(named) > 1:
        names = " and ".join(sorted(agent.__name__ for agent in named))
        raise ValueError(f"The command line names {names}; one run trains one agent: leave all but one out.")
    return next(iter(named), None)


def _defaults(selection: _Selection, agent: type[AbstractAgent]) -> tuple[TrainConfig, str]:
    """The defaults of a run's options, and a sentence about their source."""
    options, env = selection.options, selection.env
    if options.start_or_resume and options.resume:
        raise ValueError("--start-or-resume itself finds whether there is a run to continue; leave --resume out.")
    if not options.resume and (options.from_step is not None or options.new_phase):
        raise ValueError("--from-step and --new-phase continue a run; give --run-dir and --resume too.")
    if options.new_phase and selection.data is None:
        raise ValueError("--new-phase continues on other data; give them as --data.")
    # A run that is resumed, or --config, has all options.
    if options.resume:
        if options.run_dir is None:
            raise ValueError("--resume needs the run to continue; give --run-dir too.")
        if options.config is not None or options.preset is not None:
            raise ValueError("--resume takes the options of the run itself; leave out --config and --preset.")
        if not runs.config_path(options.run_dir).exists():
            raise ValueError(f"{options.run_dir} holds no run to resume; leave --resume out to start one there.")
        return read_config(runs.config_path(options.run_dir)), f"those of the run in {options.run_dir}."
    if options.config is not None:
        if options.preset is not None:
            raise ValueError("--config and --preset are both sources of defaults; leave one of them out.")
        if options.config.is_dir():
            raise ValueError(f"--config is the directory {options.config}; give {runs.config_path(options.config)}.")
        return _config_of_one_phase(options.config), f"those in {options.config}."
    if selection.data is not None:
        return _defaults_of_logs(selection.data, env, agent, options.preset)
    if options.preset == "quickstart" or (options.preset is None and env is None):
        config = presets.quickstart(env or presets.QUICKSTART_ENV, agent)
        return config, "the quickstart's: generated data, small networks, few updates."
    task = env or presets.QUICKSTART_ENV
    config, settings = presets.paper(task, agent), agent.published.of_task(task)
    judged = "success judged after a step (post), as by the papers' OGBench 1.1"
    if settings is None:
        return config, f"the agent's own; no table has settings of {agent.__name__} for {task}; {judged}."
    if settings.success is None:
        return config, f"the package's own of {agent.__name__} for {environment_of(task)}, not published; {judged}."
    success = published_success(agent, task)
    score = "" if success is None else f" (published success {success} %)"
    return config, f"the published ones of {_owner(agent)} for {environment_of(task)}{score}; {judged}."


def _owner(agent: type[AbstractAgent]) -> str:
    """The name of the agent that has the published settings, from which others may be derived."""
    return next(kind.__name__ for kind in agent.__mro__ if "published" in vars(kind))


def _config_of_one_phase(path: Path) -> TrainConfig:
    """The options in a file; warns if they are those of a run that other data began, which they cannot make again."""
    config = read_config(path)
    if path.with_name("versions.json").exists() and len(phases(path.parent)) > 1:
        warnings.warn(
            f"The run in {path.parent} had several phases, and {path.name} has the options of the last; train on the "
            "data of the first and continue with --new-phase to make it again.",
            stacklevel=2,
        )
    return config


def _defaults_of_logs(
    path: Path, env: str | None, agent: type[AbstractAgent], preset: str | None
) -> tuple[TrainConfig, str]:
    if preset == "paper":
        if env is None or agent.published.of_task(env) is None:
            raise ValueError(
                f"--preset paper has no settings of {agent.__name__} for {env or 'logs without --env'}; leave it out."
            )
        config = dataclasses.replace(presets.paper(env, agent), data=DataConfig(path=path))
        return (
            config,
            f"the published ones of {_owner(agent)} for {environment_of(env)}, which were tuned on its own data.",
        )
    small = ", small networks, few updates" if preset == "quickstart" else ""
    where = "there is no environment to evaluate in" if env is None else f"evaluated in {env}"
    return presets.own_logs(path, agent, env=env, quickstart=bool(small)), f"those for own logs{small}; {where}."
