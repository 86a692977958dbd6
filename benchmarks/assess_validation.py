"""Which of the measures of `sorl.assess` order policies as a simulator does?"""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("assess_validation", stopped="the same command continues after the last finished part")

import dataclasses
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pendulum_logs import write_pendulum_logs

from sorl import Budget, Policy, load_policy
from sorl.assess.fitted_q import FitOptions
from sorl.assess.measure import assess
from sorl.assess.record import Assessment, AtBudget, read_assessment, write_assessment
from sorl.assess.subject import load_subject
from sorl.assess.trust import distance_ratio
from sorl.config.options import read_config
from sorl.environments.pool import EnvironmentPool
from sorl.evaluate.evaluation import evaluate_policy
from sorl.runs.run import policy_path
from sorl.statistics.ranks import rank_correlation
from sorl.system import command_line, compilation
from sorl.system.files import make_directory, read_json, write_json
from sorl.train import __main__ as train


Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Task:
    """An environment, its data, and the trainings that make policies for it."""

    env: str
    options: str
    """Options of `sorl.train` for all trainings."""
    trainings: dict[str, tuple[int, ...]]
    """Numbers of updates after which each training's policy is judged, by agent and its own options."""
    inference_steps: tuple[int, ...]
    """Numbers of inference steps at which SORL's policies are judged."""


TASKS = {
    "cube": Task(
        "cube-single-play-singletask-task1-v0",
        "--evaluation.interval 0",
        {"bc": (1_000, 5_000), "sorl": (1_000, 10_000, 20_000, 40_000)},
        (1, 2, 4),
    ),
    "pendulum": Task(
        "gymnasium:Pendulum-v1",
        "--preset quickstart --evaluation.interval 0 --agent.hidden-sizes 64 64",
        {
            "bc": (300, 3_000),
            "sorl --agent.critic-hidden-sizes 64 64": (300, 1_500, 6_000),
            "sorl --agent.critic-hidden-sizes 64 64 --agent.q-coefficient 100": (1_500, 6_000),
        },
        (1, 4),
    ),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains policies of differing quality, plays them in the simulator, assesses them without it, and compares.

    Every finished part is kept in --runs, and the same command continues after it.
    """

    tasks: tuple[str, ...] = tuple(TASKS)
    """Tasks, by name."""
    episodes: int = 50
    """Episodes that each policy plays at each budget."""
    workers: int = 4
    """Processes that simulate one environment each."""
    fit: FitOptions = FitOptions(updates=3_000, hidden_sizes=(128, 128), batch_size=128, target_rate=0.1)
    """The fitted Q evaluations."""
    runs: Path = Path("runs/assess_validation")
    """Directory for logs, runs, policies, scores and assessments."""
    out: Path = Path("assess_validation.json")
    """JSON file of the tables; its other tasks are kept."""

    def __post_init__(self):
        unknown = [name for name in self.tasks if name not in TASKS]
        if unknown:
            raise ValueError(f"tasks has {unknown}; give some of {', '.join(TASKS)}.")


def main(config: Config) -> None:
    """Makes what is missing, and prints and writes the table."""
    compilation.enable_cache()
    for name in config.tasks:
        place = config.runs / name
        make_directory(place / "policies")
        if TASKS[name].env.startswith("gymnasium") and not (place / "logs.npz").exists():
            write_pendulum_logs(place / "logs.npz")
        for training, updates in TASKS[name].trainings.items():
            for number in updates:
                train_policy(config, name, training, number)
        scores = play_policies(config, name)
        rows = [row for score in scores for row in assessed(config, name, score)]
        table = correlations(rows)
        print(f"{name}: {len(rows)} policies and budgets", text(table), sep="\n", flush=True)
        _write(config, name, rows, table)


def policy_file(config: Config, task: str, training: str, updates: int) -> Path:
    """The copy of the policy of a training after so many updates."""
    return config.runs / task / "policies" / f"{_slug(training)}-{updates:06d}.sorl"


def train_policy(config: Config, task: str, training: str, updates: int) -> None:
    """Trains up to `updates` updates, unless that is done, and keeps a copy of the policy."""
    kept = policy_file(config, task, training, updates)
    if kept.exists():
        return
    place = config.runs / task
    directory, logs = place / _slug(training), place / "logs.npz"
    agent, *own = shlex.split(training)
    options = shlex.split(TASKS[task].options)
    data = ["--data", str(logs), "--env", TASKS[task].env] if logs.exists() else []
    if not (directory / "config.json").exists():
        words = [f"agent:{agent}", *data, "--run-dir", str(directory), "--updates", str(updates), *options, *own]
    else:
        words = ["--run-dir", str(directory), "--resume"]
        words += ["--updates", str(updates)] if read_config(directory / "config.json").updates < updates else []
    if code := train.main([*words, "--quiet"]):
        raise RuntimeError(f"sorl.train of {directory} ended with code {code}; see its message above.")
    found = load_policy(policy_path(directory, 0)).provenance["step"]
    if found != updates:
        raise ValueError(f"{directory} is at {found} updates, not {updates}; remove it.")
    shutil.copy(policy_path(directory, 0), kept)


def play_policies(config: Config, task: str) -> list[Row]:
    """Plays each policy at each budget in the simulator, and **returns** a row for each."""
    path = config.runs / task / "scores.json"
    rows: list[Row] = read_json(path)["rows"] if path.exists() else []
    done = {(row["policy"], row["budget"]) for row in rows}
    workers = min(config.workers, config.episodes)
    with EnvironmentPool(TASKS[task].env, workers=workers) as pool:
        for file in sorted((config.runs / task / "policies").glob("*.sorl")):
            policy = load_policy(file)
            for budget in budgets_of(policy, TASKS[task]):
                if (file.stem, budget.name) in done:
                    continue
                result = evaluate_policy(policy, pool, budget=budget, episodes=config.episodes, seed=0)
                row = {"policy": file.stem, "budget": budget.name} | result.row()
                rows.append(row)
                write_json(path, {"rows": rows})
                print(f"{file.stem:<40}{budget.name:<8}{row['success']} {row['return']:.1f}", flush=True)
    return rows


def assessed(config: Config, task: str, score: Row) -> list[Row]:
    """The measures of a policy at the budget of a score, beside the score; assesses the policy if that is not done."""
    file = config.runs / task / "policies" / f"{score['policy']}.sorl"
    path = config.runs / task / "assessments" / f"{score['policy']}.json"
    if not path.exists():
        run = read_config(next((config.runs / task).glob("*/config.json")))
        subject = load_subject(file, seed=None, env=run.env, data=run.data, discount=0.99)
        make_directory(path.parent)
        write_assessment(path, assess(subject, tuple(budgets_of(subject.policy, TASKS[task])), config.fit))
    found = read_assessment(path)
    own = {one.critic: one for one in found.calibrations}
    return [
        {"policy": score["policy"], "budget": score["budget"], "success": score["success"], "return": score["return"]}
        | {name: measure(found, one) for name, measure in MEASURES.items()}
        | {"own Q's rank correlation": getattr(own.get(f"own, {score['budget']}"), "rank_correlation", None)}
        for one in found.budgets
        if one.budget.name == score["budget"]
    ]


MEASURES: dict[str, Callable[[Assessment, AtBudget], float | None]] = {
    "fitted value at first states": lambda _, one: one.fitted.value,
    "fitted value in all states": lambda _, one: one.fitted.everywhere,
    "own critic's value": lambda _, one: one.own_value,
    "over-estimation (less is better)": lambda _, one: None if one.over_estimation is None else -one.over_estimation,
    "energy score (less is better)": lambda _, one: -one.energy_score,
    "distance to neighbours (less is better)": lambda found, one: -distance_ratio(found, one),
    "jerk, nearness to the logs'": lambda found, one: -abs(one.jerk / found.behaviour.jerk - 1),
}
"""The measures, each higher for a better policy."""


def correlations(rows: Sequence[Row]) -> list[Row]:
    """The rank correlation of each measure with the simulator's score, over all policies and within agents."""
    truth = "success" if rows[0]["success"] is not None else "return"
    groups = {"all": rows, "SORL": [row for row in rows if row["policy"].startswith("sorl")]}
    table = []
    for name in [*MEASURES, "own Q's rank correlation"]:
        line: Row = {"measure": name}
        for group, members in groups.items():
            known = [row for row in members if row[name] is not None]
            values, truths = (np.array([row[column] for row in known], float) for column in (name, truth))
            line |= {group: rank_correlation(values, truths) if len(known) > 2 else None, f"{group} n": len(known)}
        table.append(line)
    return table


def text(table: Sequence[Row]) -> str:
    """The table of correlations."""
    lines = [f"{'measure':<44}{'all':>8}{'n':>5}{'SORL':>8}{'n':>5}"]
    for row in table:
        cells = [f"{'-' if row[g] is None else format(row[g], '.2f'):>8}{row[f'{g} n']:>5}" for g in ("all", "SORL")]
        lines.append(f"{row['measure']:<44}{''.join(cells)}")
    return "\n".join(lines)


def _write(config: Config, task: str, rows: Sequence[Row], table: Sequence[Row]) -> None:
    before = read_json(config.out) if config.out.exists() else {}
    fit = dataclasses.asdict(config.fit)
    found = {"episodes": config.episodes, "fit": fit, "correlations": list(table), "policies": list(rows)}
    write_json(config.out, before | {task: found})


def budgets_of(policy: Policy, task: Task) -> list[Budget]:
    """The budgets at which a policy is judged: those of the task, or the only one that the policy supports."""
    own = policy.actor.budgets
    return own.grid(task.inference_steps if own.other_inference_steps else None, None, final=False)


def _slug(text: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text).split())


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python benchmarks/assess_validation.py"))
