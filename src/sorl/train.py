"""Train a policy: `python -m sorl.train` (the quickstart), or `--env NAME`, or `--data LOGS.npz`."""

if __name__ == "__main__":
    from sorl import entry  # before the other imports, which take seconds

    entry.run("sorl.train", stopped="continue from the last checkpoint with --resume")

import dataclasses
import inspect
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import jax
import tyro

from sorl import compilation, entry, evaluate, failed_evaluations, presets, resuming, runs
from sorl.agents import AGENTS, AbstractAgent, Sorl
from sorl.config import TrainConfig, changes, read_config
from sorl.data import GeneratedSet, LoadedData, generate, load_logs, load_ogbench, summary
from sorl.environment_pool import DEFAULT_WORKERS, EnvironmentWorkerError
from sorl.json_form import to_json
from sorl.logs import read_metrics
from sorl.normalisation import Normalisation
from sorl.published import environment_of, published
from sorl.run_directory import sole_trainer
from sorl.session import Session
from sorl.sinks import Sink, TensorBoardSink, WandbSink
from sorl.statistics import evaluation_rows, headline, table


PROG = "python -m sorl.train"

BEST_OF_N = (
    "With the published and the quickstart's settings, more candidates (best of N) lowered SORL's success at every "
    "budget measured; sorl.scaling measures what they do here, as paired differences."
)


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Output and logging; none of these options changes the numbers."""

    run_dir: Path | None = None
    """Directory of the run; an existing run is never overwritten; default: runs/ENV_AGENT_TIME."""
    resume: bool = False
    """Continue the run in --run-dir from its last checkpoint, with the options it was started with."""
    from_step: int | None = None
    """With --resume: the update of an older checkpoint to continue from; later updates are repeated; default: the last
    checkpoint."""
    new_phase: bool = False
    """With --resume and --data: continue on other logs, in the run's original units; the change is recorded."""
    config: Path | None = None
    """A run's config.json to take options from; options on the command line override them; default: none."""
    preset: Literal["quickstart", "paper"] | None = None
    """Source of the other defaults: paper (published settings; success judged after a step) or quickstart (small
    networks, generated data; success judged before a step); default: paper with --env, else quickstart."""
    tensorboard: bool = False
    """Also write TensorBoard events (pip install 'sorl[tensorboard]')."""
    wandb: bool = False
    """Also log to Weights & Biases (pip install 'sorl[wandb]'; WANDB_MODE=offline keeps it on this machine)."""
    compilation_cache: bool = True
    """Cache compiled programs in a private directory, which makes later starts faster."""
    quiet: bool = False
    """Hide the progress bar."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The whole command line."""

    options: Annotated[RunOptions, tyro.conf.arg(name="")]
    train: Annotated[TrainConfig, tyro.conf.arg(name="")]


@dataclasses.dataclass(frozen=True)
class _Selection:
    """What must be known before the other options have defaults."""

    options: Annotated[RunOptions, tyro.conf.arg(name="")] = dataclasses.field(default_factory=RunOptions)
    env: str | None = None
    data: Path | None = None


def dashed(name: str) -> str:
    """How an agent's class is named on the command line: `SorlReleased` is `sorl-released`."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


AGENT_WORDS: dict[str, type[AbstractAgent]] = {f"agent:{dashed(name)}": agent for name, agent in AGENTS.items()}
"""What chooses an agent on the command line, such as `agent:fql`; at any place, once."""


def parse(arguments: Sequence[str]) -> tuple[TrainConfig, RunOptions, str]:
    """Reads a command line.

    **Returns:** the run's options, where it goes, and one sentence that says where the defaults came from. Raises a
    `ValueError` in one sentence for options that contradict each other.
    """
    asked_for_help = {"-h", "--help"} & set(arguments)
    selection, rest = entry.read(
        _Selection,
        [argument for argument in arguments if argument not in asked_for_help],
        prog=PROG,
        add_help=False,
    )
    named = _named_agent(rest)
    default, source = _defaults(selection, named or Sorl)
    if named not in (None, type(default.agent)):
        raise ValueError(
            f"agent:{dashed(named.__name__)} is another agent than {type(default.agent).__name__}, whose options are "
            f"{source[:-1]}; leave one of the two out."
        )
    # The agent's word stands first, wherever it was given: its options may then stand anywhere. (Without it tyro knows
    # no "--agent.no-..".) Help about no agent in particular is about all of them.
    word = [] if asked_for_help and named is None else [f"agent:{dashed(type(default.agent).__name__)}"]
    parsed = entry.parse(
        Arguments,
        word + [argument for argument in arguments if argument not in AGENT_WORDS],
        prog=PROG,
        description=f"{inspect.getdoc(TrainConfig)}\n\nDefaults shown: {source}\n\n{entry.EXIT_CODES}",
        default=Arguments(selection.options, default),
        config=(tyro.conf.CascadeSubcommandArgs,),
    )
    if selection.options.resume:
        changed = changes(default, parsed.train) - resuming.FREE
        if parsed.train.updates < default.updates:
            raise ValueError(
                f"--updates is {parsed.train.updates} but the run was started with {default.updates}; give as many or "
                "more, or start a new run with --config."
            )
        if changed:
            raise ValueError(
                f"--resume continues a run as it was started, but {', '.join(sorted(changed))} differ from its "
                "config.json; leave them out, or start a new run with --config."
            )
    return parsed.train, parsed.options, source


def _named_agent(arguments: Sequence[str]) -> type[AbstractAgent] | None:
    words = [argument for argument in arguments if argument.startswith("agent:")]
    for word in words:
        if word not in AGENT_WORDS:
            raise ValueError(
                f"There is no {word}{entry.nearest(word, [*AGENT_WORDS])}; give one of {', '.join(AGENT_WORDS)}."
            )
    named = {AGENT_WORDS[word] for word in words}
    if len(named) > 1:
        names = " and ".join(sorted(agent.__name__ for agent in named))
        raise ValueError(f"The command line names {names}; one run trains one agent: leave all but one out.")
    return next(iter(named), None)


def _defaults(selection: _Selection, agent: type[AbstractAgent]) -> tuple[TrainConfig, str]:
    options, env = selection.options, selection.env
    if not options.resume and (options.from_step is not None or options.new_phase):
        raise ValueError("--from-step and --new-phase continue a run; give --run-dir and --resume too.")
    if options.resume:
        if options.run_dir is None:
            raise ValueError("--resume does not say what to resume; give --run-dir too.")
        if options.config is not None or options.preset is not None:
            raise ValueError("--resume takes the options of the run itself; leave out --config and --preset.")
        if not runs.config_path(options.run_dir).exists():
            raise ValueError(f"{options.run_dir} holds no run to resume; leave --resume out to start one there.")
        return read_config(runs.config_path(options.run_dir)), f"those of the run in {options.run_dir}."
    if options.config is not None:
        if options.preset is not None:
            raise ValueError("--config and --preset each say where defaults come from; leave one of them out.")
        return read_config(options.config), f"those in {options.config}."
    if selection.data is not None:
        if options.preset == "paper":
            raise ValueError("--preset paper has settings for OGBench's environments; leave it out with --data.")
        small = options.preset == "quickstart"
        source = f"those for own logs{', small networks, few updates' if small else ''}; there is no environment to "
        return presets.own_logs(selection.data, agent, quickstart=small), f"{source}evaluate in."
    if options.preset == "quickstart" or (options.preset is None and env is None):
        config = presets.quickstart(env or presets.QUICKSTART_ENV, agent)
        return config, "the quickstart's: generated data, small networks, few updates."
    config = presets.paper(env or presets.QUICKSTART_ENV, agent)
    settings = published(agent.__name__, config.env)
    judged = "success judged after a step (post), as by the papers' OGBench 1.1"
    if settings is None:
        return config, f"the agent's own; no table has settings of {agent.__name__} for {config.env}; {judged}."
    score = "" if settings.success is None else f" (published success {settings.success} %)"
    return config, f"the published ones of {agent.__name__} for {environment_of(config.env or '')}{score}; {judged}."


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains as a command line says; **returns** the exit code that `sorl.entry` lists."""
    return entry.guarded(lambda: command(arguments))


def command(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    config, options, source = parse(sys.argv[1:] if arguments is None else list(arguments))
    return _train(_with_absolute_paths(config), options, source)


def _train(config: TrainConfig, options: RunOptions, source: str) -> int:
    jax.devices()  # a platform that is not there is refused now, not after minutes of generating data
    directory = options.run_dir or _new_directory(config)
    with sole_trainer(directory), jax.default_matmul_precision(config.matmul_precision):
        return _train_in(directory, config, options, source)


def _train_in(directory: Path, config: TrainConfig, options: RunOptions, source: str) -> int:
    if not options.resume:
        runs.refuse_existing(directory)
    if options.compilation_cache:
        compilation.enable_cache()
    print(f"Settings: {source}\nRun directory: {directory}", flush=True)
    if options.resume:
        data = load_data(config, runs.normalisation(directory, config, new_phase=options.new_phase))
    else:
        data = load_data(config)
        runs.create(directory, config)
    print(summary.text(data.provenance["summary"]), flush=True)

    def make_sinks(resume_step: int | None) -> list[Sink]:
        sinks: list[Sink] = []
        if options.tensorboard:
            sinks.append(TensorBoardSink(directory / "tensorboard", resume_step=resume_step))
        if options.wandb:
            sinks.append(WandbSink(directory / "wandb", config=to_json(config)))
        return sinks

    session = Session(
        config,
        directory,
        data,
        resume=options.resume,
        from_step=options.from_step,
        new_phase=options.new_phase,
        make_sinks=make_sinks,
        quiet=options.quiet,
    )
    ending = session.run()
    if ending.signal is not None:
        name = signal.Signals(ending.signal).name
        print(f"Stopped by {name} at update {ending.step}, which is saved; continue with:\n  {_resume(directory)}")
        return 128 + ending.signal
    complete = _show_results(config, directory, [seed for seed in config.seeds if seed not in ending.bad_seeds])
    for seed, step in ending.bad_seeds.items():
        print(f"Seed {seed} stopped at update {step}, where its losses were not finite; it is not in the table.")
    if ending.failed_evaluations:
        print(failed_evaluations.missing(ending.failed_evaluations, ending.step, _resume(directory)))
    return 0 if complete and not ending.bad_seeds and not ending.failed_evaluations else 1


def _with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """So that the run can be resumed, and made again, from any directory."""
    data = config.data
    path, directory = (None if p is None else p.expanduser().absolute() for p in (data.path, data.directory))
    return dataclasses.replace(config, data=dataclasses.replace(data, path=path, directory=directory))


def load_data(config: TrainConfig, normalisation: Normalisation | None = None) -> LoadedData:
    """Loads the data that a configuration names, generating them first where it says so.

    **Arguments:** `normalisation`, the units of a run that is continued on own logs.
    """
    data = config.data
    if data.path is not None:
        return load_logs(
            data.path,
            validation_fraction=data.validation_fraction,
            observation_margin=data.observation_margin,
            action_low=data.action_low,
            action_high=data.action_high,
            normalisation=normalisation,
        )
    assert config.env is not None  # the configuration has one or the other
    if data.episodes is None:
        return load_ogbench(config.env, data_dir=data.directory, mirrors=data.mirrors, download=data.download)
    wanted = GeneratedSet.of(config.env, data.episodes, data.generation_seed)
    generate(wanted)
    return load_ogbench(config.env, generated=wanted)


def _show_results(config: TrainConfig, directory: Path, seeds: Sequence[int]) -> bool:
    """The headline, the table over budgets, where everything is, and what to do next.

    **Returns:** whether the table was made; where it was not, says why and how to make it.
    """
    failure = None
    if config.evaluation.interval and seeds:
        _show_headline(config, directory, seeds)
        try:
            evaluate.main(_table_options(config, directory, seeds))
        except (EnvironmentWorkerError, FloatingPointError, OSError) as error:
            failure = error
    lines = [
        f"Policy:       {runs.policy_path(directory, [*seeds, *config.seeds][0])}  (sorl.load_policy)",
        f"Metrics:      {directory / 'metrics.csv'}",
        "Next:",
        *(f"  {command}" for command in _next_commands(config, directory)),
    ]
    if config.env is not None and config.agent.budgets.other_candidates:
        lines.append(BEST_OF_N)
    print("\n".join(lines))
    if failure is not None:
        print(
            f"error: the table over budgets was not made, but the run is finished and saved: {failure} Make it with:"
            f"\n  python -m sorl.evaluate {directory} --episodes {config.final_episodes}",
            file=sys.stderr,
        )
    return failure is None


def _show_headline(config: TrainConfig, directory: Path, seeds: Sequence[int]) -> None:
    rows = [row for row in read_metrics(directory) if row["seed"] in seeds]
    noise_scale = config.agent.budgets.usual.noise_scale
    found = headline(evaluation_rows(rows, config.evaluation.episodes, noise_scale))
    if found:
        print("Headline, the mean over the last three evaluations while training:")
        print(table(found))


def _table_options(config: TrainConfig, directory: Path, seeds: Sequence[int]) -> evaluate.Config:
    evaluation = config.evaluation
    return evaluate.Config(
        run=directory,
        seeds=tuple(seeds),
        workers=evaluation.workers or DEFAULT_WORKERS,
        inference_steps=evaluation.final_inference_steps,
        candidates=evaluation.final_candidates,
        episodes=config.final_episodes,
        step_timeout=evaluation.step_timeout,
        success_timing=evaluation.success_timing,
        compilation_cache=False,  # train switched it on, or was told not to
    )


def _next_commands(config: TrainConfig, directory: Path) -> list[str]:
    """Commands that work on this run."""
    place, own = shlex.quote(str(directory)), config.agent.budgets
    more = f"{_resume(directory)} --updates {2 * config.updates}"
    if config.env is None:
        return [f"python -m sorl.{name} {place}" for name in ("policy", "export", "report")] + [more]
    steps = [*own.inference_steps, 2 * max(own.inference_steps)]
    other = f" --inference-steps {' '.join(map(str, steps))}" if own.other_inference_steps else ""
    scaling = [f"python -m sorl.scaling {place}"] if own.other_inference_steps or own.other_candidates else []
    return [f"python -m sorl.evaluate {place}{other}", *scaling, more]


def _resume(directory: Path) -> str:
    return f"python -m sorl.train --run-dir {shlex.quote(str(directory))} --resume"


def _new_directory(config: TrainConfig) -> Path:
    name = config.env or (config.data.path or Path("logs")).stem
    return Path("runs") / f"{name}_{type(config.agent).__name__.lower()}_{time.strftime('%Y%m%d-%H%M%S')}"
