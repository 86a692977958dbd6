"""Trains a policy: `python -m sorl.train` (the quickstart), or with `--env NAME`, `--data LOGS.npz`, or both."""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("sorl.train.__main__", stopped="if there is a checkpoint, continue with --resume, else start again")

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
from jax.sharding import Mesh

from sorl.config.json_form import to_json
from sorl.config.options import TrainConfig
from sorl.data import LoadedData, summary
from sorl.data.normalisation import Normalisation
from sorl.data.recorded.origin import refuse_other_order
from sorl.environments.serial import SerialEnvironments
from sorl.evaluate.fitting import refuse_misfit
from sorl.runs import run as runs
from sorl.runs.directory import sole_trainer
from sorl.runs.metrics import Sink
from sorl.system import compilation, entry
from sorl.system.signals import Interruption
from sorl.train.cli import RunOptions, parse, parse_devices, with_absolute_paths
from sorl.train.devices import connect, make_mesh
from sorl.train.ending import show_ending
from sorl.train.hosts import Hosts, leading, together
from sorl.train.session import Session
from sorl.train.sinks import TensorBoardSink, WandbSink, refuse_missing
from sorl.train.summary import untrained_policy
from sorl.train.trainer import follow
from sorl.train.whole_decisions import no_validation, refuse_no_decision


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains with the given command line arguments; **returns** an exit code of `sorl.system.entry`."""
    return entry.guarded(lambda: command(arguments))


def command(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    hardware, own_agents = parse_devices(words)
    if hardware.distributed is None:
        return _train(words, None)
    # Of several processes only the first reads the other options, because they may name files that only it has.
    connect(hardware)
    if jax.process_index() > 0:
        own_agents.load()
        # Signals are for the first process, which saves and then ends the others.
        with together(), Interruption():
            follow(hardware, Hosts())
        return 0
    with together(), leading() as hosts:
        return _train(words, hosts)


def _train(words: Sequence[str], hosts: Hosts | None) -> int:
    config, options, source = parse(words)
    config = with_absolute_paths(config)
    jax.devices()  # raises now if the platform is missing, not after minutes of generating data
    directory = options.run_dir or _new_directory(config)
    mesh = make_mesh(options.hardware, config)
    with sole_trainer(directory), jax.default_matmul_precision(config.matmul_precision):
        return _train_in(directory, config, options, source, mesh, hosts)


def _train_in(
    directory: Path, config: TrainConfig, options: RunOptions, source: str, mesh: Mesh | None, hosts: Hosts | None
) -> int:
    # Checks come before slow work, and config.json is written after the data are loaded: a failed start leaves nothing.
    if not options.resume:
        runs.refuse_existing(directory)
    refuse_missing(tensorboard=options.tensorboard, wandb=options.wandb)
    if options.compilation_cache:
        compilation.enable_cache()
    print(f"Settings: {source}\nRun directory: {directory}", flush=True)
    if options.resume:
        data = load_data(config, runs.normalisation(directory, config, new_phase=options.new_phase))
    else:
        data = _load_fitting_data(config)
        runs.create(directory, config)
    print(summary.text(data.provenance["summary"]))
    print(f"  {'residence':<10} {data.residence.residence}: {data.residence.reason}", flush=True)
    for warning in untrained_policy(config) + no_validation(config, data):
        print(warning, flush=True)
    session = Session(
        config,
        directory,
        data,
        resume=options.resume,
        from_step=options.from_step,
        new_phase=options.new_phase,
        make_sinks=lambda resume_step: _sinks(directory, config, options, resume_step),
        quiet=options.quiet,
        mesh=mesh,
        hosts=hosts,
    )
    return show_ending(directory, config, session.run(), quiet=options.quiet)


def _sinks(directory: Path, config: TrainConfig, options: RunOptions, resume_step: int | None) -> list[Sink]:
    sinks: list[Sink] = []
    kind = "member" if config.population else "seed"
    if options.tensorboard:
        sinks.append(TensorBoardSink(directory / "tensorboard", kind=kind, resume_step=resume_step))
    if options.wandb:
        sinks.append(WandbSink(directory / "wandb", kind=kind, config=to_json(config)))
    return sinks


def load_data(config: TrainConfig, normalisation: Normalisation | None = None) -> LoadedData:
    """Loads a configuration's data, after generating them if it asks for generated episodes.

    **Arguments:** `normalisation`, that of the run, if a run on own logs is continued.

    Raises a `ValueError`, one sentence, if no episode is as long as a decision of the agent, and as the source does.
    """
    data = config.source.load(normalisation=normalisation)
    refuse_no_decision(config, data)
    return data


def _load_fitting_data(config: TrainConfig) -> LoadedData:
    """Loads the data of a new run, and checks that own logs fit the environment (created first, as loading is slow)."""
    if config.env is None or config.data.path is None:
        return load_data(config)
    environments = SerialEnvironments(config.env)
    environments.sizes()
    data = load_data(config)
    refuse_misfit(environments, data.normalisation, of="logs")
    refuse_other_order(config.env, data.provenance)
    return data


def _new_directory(config: TrainConfig) -> Path:
    name = re.sub(r"[^\w.-]+", "-", config.env or (config.data.path or Path("logs")).stem)
    return Path("runs") / f"{name}_{type(config.agent).__name__.lower()}_{time.strftime('%Y%m%d-%H%M%S')}"
