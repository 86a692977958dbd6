"""`python -m sorl.scaling RUN`: success and latency of a trained run at every pair of steps and candidates."""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("sorl.scaling.__main__", stopped="the same command continues after the last finished pair")

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from sorl.agents import AbstractAgent, Budget
from sorl.config.json_form import to_json
from sorl.config.options import MAX_EPISODES, MAX_WORKERS
from sorl.config.own_agents import OwnAgents
from sorl.environments.interface import SuccessTiming
from sorl.environments.named import is_ogbench
from sorl.environments.pool import DEFAULT_WORKERS, STEP_TIMEOUT, refuse_timeout
from sorl.evaluate.options import DecisionOptions
from sorl.policy import load_policy
from sorl.runs.run import Run, config_path, load_run
from sorl.runs.versions import versions
from sorl.scaling.grid import Effort, Grid, Subject
from sorl.scaling.pictures import save_pictures
from sorl.scaling.summary import Pair, best_pair, grid_table, measure_of_pairs, sizes, summarise_grid
from sorl.system import command_line, compilation
from sorl.system.files import make_directory, refuse_unwritable, whole_file, write_csv
from sorl.system.ranges import refuse_outside


INFERENCE_STEPS = (1, 2, 4, 8, 16)
CANDIDATES = (1, 2, 4, 8, 16, 32)


@dataclasses.dataclass(frozen=True)
class Config:
    """Measures success and latency of a trained run at every pair of inference steps and candidates.

    All pairs play the same episodes. One step with one candidate is always included, and the other pairs are compared
    with it. If the command is interrupted, run it again to continue; finished pairs are not played again, even if the
    code of an environment of your own has changed. It prints the table and writes it to the run
    directory (or --out) with pictures: scaling.csv (a row for each pair), scaling.json (also every episode),
    scaling.png and pareto.png.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory written by `sorl.train`, or, with --out, a policy file or the name of a pretrained policy."""
    env: str | None = None
    """Environment to play in, of a run that was trained on logs alone: OGBench's name of a single-task data set, or
    MODULE:ID of Gymnasium, such as gymnasium:Pendulum-v1; default: the run's own."""
    inference_steps: tuple[int, ...] | None = None
    """Numbers of inference steps M^inf (jumps or integration steps from noise to action); default: the agent's own, and
    1 2 4 8 16 for an agent that can act with any."""
    candidates: tuple[int, ...] | None = None
    """Numbers of candidate actions N, from which the critic picks one; default: the agent's own, and 1 2 4 8 16 32 for
    an agent that can choose among any number."""
    episodes: int = 50
    """Episodes for each training seed and pair."""
    seeds: tuple[int, ...] | None = None
    """Training seeds to evaluate, or members of a population that have the same values; default: all whose losses
    stayed finite."""
    seed: int = 0
    """Seed of the episodes and of the policy's noise in them."""
    success_timing: SuccessTiming | None = None
    """State that success is judged on: before a step (pre, as in OGBench >= 1.2) or after it (post, as in OGBench 1.1
    and the papers); default: the run's own."""
    decision: Annotated[DecisionOptions, tyro.conf.arg(name="")] = dataclasses.field(default_factory=DecisionOptions)
    """How a decision is made, at any budget."""
    batch_size: int = 64
    """Observations in a batch; decisions are timed for one observation and for a batch."""
    timing_seconds: float = 1.0
    """Seconds of timing for each pair, once for one observation and once for a batch."""
    store_scores: bool = True
    """Store the results in the run's policy files (with --out: in copies there), which use them to choose a budget for
    a time limit."""
    out: Path | None = None
    """Directory for all files, for instance if the run directory is read-only; default: the run directory."""
    workers: int = DEFAULT_WORKERS
    """Processes that simulate one environment each, at most one per episode; results do not depend on it."""
    step_timeout: float = STEP_TIMEOUT
    """Seconds after which a simulator's step or reset counts as hung and the command fails; finished pairs are kept."""
    compilation_cache: bool = True
    """Cache compiled programs in a private directory, which makes later starts faster."""
    own_agents: Annotated[OwnAgents, tyro.conf.arg(name="")] = dataclasses.field(default_factory=OwnAgents)
    """Agents of your own."""
    quiet: bool = False
    """Hide the progress bar."""

    def __post_init__(self):
        counts = {"episodes": (1, MAX_EPISODES), "workers": (1, MAX_WORKERS), "batch_size": (1, 2**20)}
        refuse_outside(self, seed=(0, 2**32 - 1), **counts)
        refuse_timeout(self.step_timeout)


def main(config: Config) -> list[Pair]:
    """Plays the missing pairs, prints the table and writes the files; **returns** the table's rows."""
    config.own_agents.load()
    if config.compilation_cache:
        compilation.enable_cache()
    # Refuse before anything is played.
    run = load_run(config.run).in_environment(config.env)
    directory = config.out or run.home
    if directory is None:
        raise ValueError(f"{config.run} is a policy without a run directory; give one for the results as --out.")
    make_directory(directory)
    refuse_unwritable(directory)
    if config.store_scores:
        _refuse_another_run(run, config.seeds, directory)
    grid = _grid(config, run, directory)
    if left_out := run.left_out(config.seeds):
        print(left_out)
    # Play the missing pairs; finished ones are read from their files.
    print(_beginning(grid, run.env), flush=True)
    with jax.default_matmul_precision(run.config.matmul_precision):
        workers = min(config.workers, config.episodes)
        grid.finish(workers, step_timeout=config.step_timeout, quiet=config.quiet)
    # Tabulate all pairs, and write them with their episodes, pictures and scores.
    records = grid.records()
    pairs = summarise_grid(records)
    print(_title(run, pairs), grid_table(pairs), _choice(pairs), sep="\n")
    settings = grid.settings | {"step": run.step, "data": run.data}
    members = run.config.members
    rows = [
        {"step": run.step_of(row["training_seed"])} | row | members[row["training_seed"]].columns("training_seed")
        for record in records
        for row in record["rows"]
    ]
    _write(directory, {"settings": settings, "pairs": pairs, "rows": rows})
    _picture(run, pairs, directory)
    if config.store_scores:
        store_scores(run, config.seeds, pairs, directory)
    return pairs


def budgets(config: Config, agent: AbstractAgent) -> list[Budget]:
    """The pairs of the grid, each once, with the reference first.

    The reference has one step and one candidate if the agent supports them, else the smallest requested numbers.
    """
    own = agent.actor.budgets
    steps = set(config.inference_steps or own.inference_steps)
    if config.inference_steps is None and own.other_inference_steps:
        steps |= set(INFERENCE_STEPS)
    candidates = set(config.candidates or own.candidates)
    if config.candidates is None and own.other_candidates:
        candidates |= set(CANDIDATES)
    least = (
        1 if own.other_inference_steps or 1 in own.inference_steps else min(steps),
        1 if own.other_candidates or 1 in own.candidates else min(candidates),
    )
    reference = config.decision.budgets(own, least[:1], least[1:])
    grid = config.decision.budgets(own, sorted(steps), sorted(candidates))
    return reference + [budget for budget in grid if budget != reference[0]]


def store_scores(run: Run, seeds: Sequence[int] | None, pairs: Sequence[Pair], directory: Path) -> None:
    """Stores the pairs in the policy files of the given training seeds, or in copies in another `directory`.

    A file that no longer holds the policy that was played is skipped, with a line that says so.
    """
    for seed, played in run.chosen(seeds).items():
        path = run.policy_path(seed)
        policy = load_policy(path)
        if played.digest != policy.digest:
            print(f"{path} changed while the grid was played, so it gets no scores; run the same command again.")
            continue
        scored = directory / path.name
        policy.with_scores(pairs).save(scored)
        print(f"Stored the pairs in {scored}")


def _refuse_another_run(run: Run, seeds: Sequence[int] | None, directory: Path) -> None:
    """Raises a `ValueError` if the copies with scores would replace the policies of another run."""
    for seed in run.chosen(seeds):
        path = run.policy_path(seed)
        scored = directory / path.name
        if config_path(directory).exists() and scored.exists() and not scored.samefile(path):
            raise ValueError(
                f"{directory} is another run, and the copy of {path} with scores would replace its {path.name}; give "
                "another --out, or --no-store-scores."
            )


def _grid(config: Config, run: Run, directory: Path) -> Grid:
    timing = config.success_timing or run.config.evaluation.success_timing
    subject = Subject(run.env, timing, run.chosen_alike(config.seeds))
    batch_sizes = (1, config.batch_size) if config.batch_size > 1 else (1,)
    effort = Effort(config.episodes, config.seed, batch_sizes, config.timing_seconds)
    place = versions(run.config)
    circumstances = {
        "decision": to_json(config.decision),
        "matmul_precision": run.config.matmul_precision,
        "versions": {name: place[name] for name in _DEPENDED_ON},
    }
    return Grid(directory / "scaling", subject, effort, budgets(config, run.agent), circumstances)


_DEPENDED_ON = ("device", "sorl", "jax", "jaxlib", "equinox", "numpy", "ogbench", "mujoco", "gymnasium")


def _beginning(grid: Grid, env: str) -> str:
    finished, number = len(grid.finished()), len(grid.budgets)
    if finished:
        changed = "" if is_ogbench(env) else f" If the code of {env} has changed since, delete that directory."
        return f"{finished} of {number} pairs are finished in {grid.directory}; continuing with the others.{changed}"
    others = any(place != grid.directory for place in grid.directory.parent.glob("*"))
    return f"Playing {number} pairs; each that is finished is kept in {grid.directory}." + (
        " Earlier results beside it are of other policies or settings, and are not used." if others else ""
    )


def _title(run: Run, pairs: Sequence[Pair]) -> str:
    seeds, chunk = pairs[0]["seeds"], run.agent.actor.actions_at_once
    decisions = f"decisions of {chunk} actions each" if chunk > 1 else "decisions"
    return (
        f"{run.env} after {run.step} updates on {run.data['source']} data, {run.data['episodes']} episodes; "
        f"{seeds} training seed{'s' * (seeds > 1)}, {pairs[0]['episodes']} episodes played for each; "
        f"{decisions} {_unusual(run, pairs[0])}timed on {jax.devices()[0].device_kind}"
    )


def _unusual(run: Run, pair: Pair) -> str:
    """How decisions differ from the agent's usual ones; empty if they do not."""
    own = run.agent.actor.budgets.usual.noise_scale
    noise = [] if pair["noise_scale"] == own else [f"noise scale {pair['noise_scale']:g}"]
    verifier = [] if pair["verifier"] is None else [f"verifier {pair['verifier']}"]
    return f"with {' and '.join(noise + verifier)} " if noise + verifier else ""


def _choice(pairs: Sequence[Pair]) -> str:
    best, measure = best_pair(pairs), measure_of_pairs(pairs)
    return (
        f"Best: {sizes(best)}, {measure.name} {measure.text(best[measure.name])} at {best['latency_p95_ms']:.3g} ms "
        f"(p95); of the pairs that do no worse than {sizes(pairs[0])} it has the highest {measure.name}, and of equals "
        "it is the fastest."
    )


def _write(directory: Path, content: dict[str, Any]) -> None:
    with whole_file(directory / "scaling.json") as file:
        json.dump(content, file, allow_nan=False)
    write_csv(directory / "scaling.csv", content["pairs"])
    print(f"Wrote {directory / 'scaling.json'} and scaling.csv")


def _picture(run: Run, pairs: Sequence[Pair], directory: Path) -> None:
    try:
        paths = save_pictures(pairs, _title(run, pairs).replace("; ", "\n"), directory)
    except ImportError:
        print("No pictures without matplotlib; to get them, pip install 'sorl[plots]' and give the same command again.")
        return
    print(f"Wrote {' and '.join(map(str, paths))}")


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python -m sorl.scaling"))
