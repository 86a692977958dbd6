"""The text that training prints at the end of a run: its results, their files, and the next commands."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from sorl.agents.modules import module_option
from sorl.config.options import TrainConfig
from sorl.environments.pool import DEFAULT_WORKERS, EnvironmentWorkerError
from sorl.evaluate import __main__ as evaluate
from sorl.runs import run as runs
from sorl.runs.metrics import read_metrics
from sorl.statistics.rows import evaluation_rows, member_of
from sorl.statistics.tables import headline, table
from sorl.system import entry


BEST_OF_N = (
    "On cube-single, more candidates (best of N) lowered SORL's success at every budget measured, with the published "
    "and the quickstart's settings; sorl.scaling measures their effect on this run, as paired differences. "
    "agent:sorl-plus --agent.backup-candidates 4 --agent.no-use-q-loss trains for them."
)


def show_results(config: TrainConfig, directory: Path, seeds: Sequence[int], *, quiet: bool = False) -> bool:
    """Prints the headline, the table over budgets, the files, and the next commands.

    **Arguments:** `quiet`, whether to hide the progress bar of the table over budgets.

    **Returns:** whether the table was made; if not, also prints the reason and the command that makes it.
    """
    failure = None
    # The run is finished even if the table fails, so the failure is printed last.
    if config.evaluation.interval and seeds:
        _show_headline(config, directory, seeds)
        try:
            evaluate.main(_table_options(config, directory, quiet))
        except (EnvironmentWorkerError, FloatingPointError, OSError) as error:
            failure = error
    if not seeds:
        print(f"No policy is good: all losses became non-finite.\nMetrics:      {directory / 'metrics.csv'}")
        return True
    lines = [
        f"Policy:       {runs.policy_file(directory, config, seeds[0])}  (sorl.load_policy)",
        f"Metrics:      {directory / 'metrics.csv'}",
        "Next:",
        *(f"  {command}" for command in next_commands(config, directory)),
        *hints(config),
    ]
    print("\n".join(lines))
    if failure is not None:
        print(
            "error: the table over budgets was not made, but the run is finished and saved: "
            f"{entry.sentence(failure)} Make it with:"
            f"\n  python -m sorl.evaluate {_place(config, directory)} --episodes {config.final_episodes}",
            file=sys.stderr,
        )
    return failure is None


def hints(config: TrainConfig) -> list[str]:
    """What to know before the next commands, as sentences.

    That the policy is untrained; and the effect of best of N, for agents that can use it and do not by themselves.
    """
    budgets = config.agent.actor.budgets
    mentioned = config.env is not None and budgets.other_candidates and budgets.usual.candidates == 1
    return untrained_policy(config) + ([BEST_OF_N] if mentioned else [])


def untrained_policy(config: TrainConfig) -> list[str]:
    """One sentence if the run ends before its agent trains the policy; else nothing."""
    before = config.agent.updates_before_policy
    if config.updates > before:
        return []
    name = type(config.agent).__name__
    return [f"warning: {name} trains its policy only after {before:,} updates; give more --updates than these."]


def _show_headline(config: TrainConfig, directory: Path, seeds: Sequence[int]) -> None:
    rows = [row for row in read_metrics(directory) if member_of(row) in seeds]
    noise_scale = config.agent.actor.budgets.usual.noise_scale
    found = headline(evaluation_rows(rows, config.evaluation.episodes, noise_scale))
    if found:
        count = len(found[0]["steps"])
        which = "the only evaluation" if count == 1 else f"the mean over the last {count} evaluations"
        print(f"Headline, {which} while training:")
        print(table(found))


def _table_options(config: TrainConfig, directory: Path, quiet: bool) -> evaluate.Config:
    evaluation = config.evaluation
    # All good seeds, unnamed, so that the table may replace an earlier one of more.
    return evaluate.Config(
        run=directory,
        workers=evaluation.workers or DEFAULT_WORKERS,
        inference_steps=evaluation.final_inference_steps,
        candidates=evaluation.final_candidates,
        episodes=config.final_episodes,
        step_timeout=evaluation.step_timeout,
        success_timing=evaluation.success_timing,
        quiet=quiet,
        compilation_cache=False,  # the training command has already enabled it, unless the user disabled it
    )


def next_commands(config: TrainConfig, directory: Path) -> list[str]:
    """The commands that a user may want to run next on this run."""
    place, own = _place(config, directory), config.agent.actor.budgets
    more = f"{resume_command(config, directory)} --updates {2 * config.updates}"
    if config.env is None:
        return [f"python -m sorl.{name} {place}" for name in ("assess", "policy", "export", "report")] + [more]
    steps = [*own.inference_steps, 2 * max(own.inference_steps)]
    other = f" --inference-steps {' '.join(map(str, steps))}" if own.other_inference_steps else ""
    scaling = [f"python -m sorl.scaling {place}"] if own.other_inference_steps or own.other_candidates else []
    return [f"python -m sorl.evaluate {place}{other}", *scaling, more]


def resume_command(config: TrainConfig, directory: Path) -> str:
    """The command that continues a run, quoted for the shell."""
    return f"python -m sorl.train --run-dir {_place(config, directory)} --resume"


def _place(config: TrainConfig, directory: Path) -> str:
    """The run directory and the option that names the module of its agent where one is needed."""
    return shlex.quote(str(directory)) + module_option(type(config.agent))
