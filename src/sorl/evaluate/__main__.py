"""`python -m sorl.evaluate RUN`: evaluates a trained run at every compute budget on the same episodes."""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("sorl.evaluate.__main__")

import dataclasses
import itertools
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from tqdm import tqdm

from sorl.agents import Budget
from sorl.config.options import MAX_EPISODES, MAX_WORKERS
from sorl.config.own_agents import OwnAgents
from sorl.environments.interface import SuccessTiming
from sorl.environments.minari_sets import reference_scores
from sorl.environments.pool import DEFAULT_WORKERS, STEP_TIMEOUT, EnvironmentPool, refuse_timeout
from sorl.evaluate.evaluation import EvaluationResult, evaluate_policy
from sorl.evaluate.options import DecisionOptions
from sorl.evaluate.playing_time import amount, duration, measured_speed
from sorl.runs.run import Run, load_run
from sorl.statistics.rows import member_of
from sorl.statistics.tables import summarise, table
from sorl.system import command_line, compilation
from sorl.system.files import make_directory, read_rows, refuse_unwritable, whole_file, write_csv
from sorl.system.ranges import refuse_outside


@dataclasses.dataclass(frozen=True)
class Config:
    """Evaluates a trained run at all combinations of inference steps and candidates, and tabulates the results.

    All budgets and training seeds play the same episodes. The table is printed and written into the run directory
    (or --out) as evaluation.json (with every episode) and evaluation.csv (a row for each training seed and budget).
    Earlier files are replaced, unless they hold seeds that --seeds leaves out. A policy file or a pretrained policy is
    played like a run of one seed.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory that `sorl.train` made, a policy file, or the name of a pretrained policy."""
    env: str | None = None
    """Environment to play in, of a run that was trained on logs alone: OGBench's name of a single-task data set, or
    MODULE:ID of Gymnasium, such as gymnasium:Pendulum-v1; default: the run's own."""
    inference_steps: tuple[int, ...] | None = None
    """Numbers of inference steps M^inf (jumps or integration steps from noise to action); default: the agent's own."""
    candidates: tuple[int, ...] | None = None
    """Numbers of candidate actions N, from which the critic picks one. With the published and the quickstart's
    settings, best of N lowered SORL's success on cube-single at every budget; `sorl.scaling` measures it with paired
    differences; default: the agent's own."""
    episodes: int = 50
    """Episodes for each training seed and budget."""
    seeds: tuple[int, ...] | None = None
    """Training seeds to evaluate, or members of a population; default: all whose losses stayed finite."""
    seed: int = 0
    """Seed of the episodes and of the policy's noise in them."""
    success_timing: SuccessTiming | None = None
    """State that success is judged on: before a step (pre, as in OGBench >= 1.2) or after it (post, as in OGBench 1.1
    and the papers); default: the run's own."""
    decision: Annotated[DecisionOptions, tyro.conf.arg(name="")] = dataclasses.field(default_factory=DecisionOptions)
    """How a decision is made, at any budget."""
    workers: int = DEFAULT_WORKERS
    """Processes that simulate one environment each, at most one per episode; results do not depend on it."""
    step_timeout: float = STEP_TIMEOUT
    """Seconds after which a simulator's step or reset counts as hung and the evaluation fails."""
    out: Path | None = None
    """Directory for the files, for instance if the run directory is read-only; default: the run directory, and no files
    for a policy file."""
    video: Path | None = None
    """Directory for videos of the first training seed, one for each budget; default: no videos."""
    video_episodes: int = 1
    """Episodes in the video of each budget."""
    compilation_cache: bool = True
    """Cache compiled programs in a private directory, which makes later starts faster."""
    quiet: bool = False
    """Hide the progress bar."""
    own_agents: Annotated[OwnAgents, tyro.conf.arg(name="")] = dataclasses.field(default_factory=OwnAgents)
    """Agents of your own."""

    def __post_init__(self):
        counts = {"episodes": (1, MAX_EPISODES), "workers": (1, MAX_WORKERS), "video_episodes": (1, MAX_EPISODES)}
        refuse_outside(self, seed=(0, 2**32 - 1), **counts)
        refuse_timeout(self.step_timeout)


def main(config: Config) -> list[dict[str, Any]]:
    """Evaluates, prints the table, and writes the files and videos; **returns** the rows of the table."""
    config.own_agents.load()
    if config.compilation_cache:
        compilation.enable_cache()
    run = load_run(config.run).in_environment(config.env)
    for directory in (config.out or run.home, config.video):  # fail before the episodes are played
        if directory is not None:
            make_directory(directory)
            refuse_unwritable(directory)
    if config.seeds is not None and (directory := config.out or run.home) is not None:
        _refuse_larger_table(directory / "evaluation.json", run.chosen(config.seeds))
    if config.video is not None:
        from sorl.evaluate.video import refuse_unrenderable

        refuse_unrenderable(run.env, _timing(config, run))
    with jax.default_matmul_precision(run.config.matmul_precision):
        return _evaluate_run(config, run)


def _refuse_larger_table(path: Path, chosen: Iterable[int]) -> None:
    """Raises a `FileExistsError` if the table in `path` has rows of seeds (or members) that are not played now."""
    rows = read_rows(path, "rows", ("training_seed",), "remove it") if path.exists() else []
    if lost := sorted({member_of(row) for row in rows} - {*chosen}):
        noun = "member" if "member" in rows[0] else "seed"
        raise FileExistsError(
            f"{path} has rows of {noun} {', '.join(map(str, lost))}, which --seeds would lose; give another directory "
            "as --out, or leave --seeds out."
        )


def _evaluate_run(config: Config, run: Run) -> list[dict[str, Any]]:
    if left_out := run.left_out(config.seeds):
        print(left_out)
    results = _evaluate(config, run)
    data = {"data_source": run.data["source"], "data_episodes": run.data["episodes"]}
    members = run.config.members
    rows = [
        {"step": run.step_of(number)} | members[number].columns("training_seed") | result.row() | data
        for number, result in results
    ]
    summary = summarise(rows)
    lines = [_title(rows[0]), table(summary)]
    if (scores := reference_scores(run.env)) is not None:
        lines.append(add_normalised_returns(summary, scores))
    # The files come before the text, whose reader may be gone; and the text also if the files cannot be written.
    try:
        if (directory := config.out or run.home) is not None:
            lines += _write(directory, summary, rows, results)
    finally:
        print(*lines, sep="\n")
    if config.video is not None:
        _film(config, run, config.video)
    return summary


def _write(
    directory: Path,
    summary: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    results: list[tuple[int, EvaluationResult]],
) -> list[str]:
    """Writes the files, and **returns** a line about each."""
    episodes = [row | result.per_episode() for row, (_, result) in zip(rows, results, strict=True)]
    paths = directory / "evaluation.json", directory / "evaluation.csv"
    deeds = ["Replaced" if path.exists() else "Wrote" for path in paths]
    with whole_file(paths[0]) as file:
        json.dump({"summary": summary, "rows": episodes}, file)
    write_csv(paths[1], rows)
    return [f"{deed} {path}" for deed, path in zip(deeds, paths, strict=True)]


def add_normalised_returns(summary: list[dict[str, Any]], scores: tuple[float, float]) -> str:
    """Adds `normalised_return`, 0 and 1 at the reference scores, to each row; **returns** them as a line of text."""
    low, high = scores
    for row in summary:
        row["normalised_return"] = (row["return"] - low) / (high - low)
    found = [
        f"{row['normalised_return']:.3f} (M^inf {row['inference_steps']}, N {row['candidates']})" for row in summary
    ]
    return f"Normalised return, 0 at {low:g} and 1 at {high:g}: {', '.join(found)}."


def _budgets(config: Config, run: Run) -> list[Budget]:
    return config.decision.budgets(run.agent.actor.budgets, config.inference_steps, config.candidates)


def _evaluate(config: Config, run: Run) -> list[tuple[int, EvaluationResult]]:
    """Training seed (or member) and result of every evaluation; the outer loop is over budgets.

    Where one result has a success, all have: a missing one counts as none.
    """
    budgets, policies = _budgets(config, run), run.chosen(config.seeds)
    speed = measured_speed(run.directory, run.config)
    print(f"Playing {amount(len(budgets), len(policies), config.episodes, speed)}.", flush=True)
    games = list(itertools.product(budgets, policies.items()))
    workers, timing = min(config.workers, config.episodes), _timing(config, run)
    results, begun = [], time.perf_counter()
    with EnvironmentPool(run.env, workers=workers, success_timing=timing, step_timeout=config.step_timeout) as pool:
        for budget, (number, policy) in tqdm(games, desc="evaluating", unit="policy", disable=config.quiet):
            result = evaluate_policy(policy, pool, budget=budget, episodes=config.episodes, seed=config.seed)
            results.append((number, result))
            if speed is None and len(results) == 1 < len(games):
                seconds = (time.perf_counter() - begun) * (len(games) - 1)
                tqdm.write(f"About {duration(seconds)} for the other {len(games) - 1}.")
    if any(result.success is not None for _, result in results):
        return [(number, result.with_success()) for number, result in results]
    return results


def _timing(config: Config, run: Run) -> SuccessTiming:
    return config.success_timing or run.config.evaluation.success_timing


def _title(row: dict[str, Any]) -> str:
    return (
        f"{row['env']} after {row['step']} updates on {row['data_source']} data, {row['data_episodes']} episodes; "
        f"{row['episodes']} episodes played for each training seed; {_judged(row)}"
    )


def _judged(row: dict[str, Any]) -> str:
    if row["success_timing"] is not None:
        return f"success judged {row['success_timing']}-step (ogbench {row['ogbench_version']})"
    return "the environment reports no success" if row["success"] is None else "success as the environment reports it"


def _film(config: Config, run: Run, directory: Path) -> None:
    from sorl.evaluate.video import record

    number, policy = next(iter(run.chosen(config.seeds).items()))
    for budget in tqdm(_budgets(config, run), desc="filming", unit="budget", disable=config.quiet):
        for path in record(
            policy,
            run.env,
            directory,
            budget=budget,
            episodes=config.episodes,
            first=min(config.video_episodes, config.episodes),
            seed=config.seed,
            success_timing=_timing(config, run),
            label=f"{run.config.members[number].kind}{number}-steps{budget.inference_steps}-candidates{budget.candidates}-",
            quiet=config.quiet,
        ):
            tqdm.write(f"Wrote {path}")


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python -m sorl.evaluate"))
