"""Which of SORL+'s switches help, one at a time and together, against Sorl, FQL, IFQL and ReBRAC?"""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("ablate", stopped="the same command continues with what is not finished")

import dataclasses
import math
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import compare

from sorl.config.changes import changes
from sorl.config.options import read_config
from sorl.policy import bad_seeds
from sorl.runs.metrics import read_metrics
from sorl.runs.run import config_path
from sorl.statistics.rows import evaluation_rows
from sorl.statistics.tables import headline
from sorl.sweep.grid import with_joined_options
from sorl.system import command_line
from sorl.system.files import read_json, whole_file, write_json
from sorl.system.ranges import MAX_COUNT, refuse_outside
from sorl.train.cli import parse, with_absolute_paths
from sorl.train.resuming import FREE


TASKS = (
    "cube-double-play-singletask-task2-v0",
    "scene-play-singletask-task2-v0",
    "cube-double-play-singletask-task1-v0",
    "scene-play-singletask-task4-v0",
    "puzzle-3x3-play-singletask-task1-v0",
    "cube-single-play-singletask-task2-v0",
)
"""The most telling first; cube-single is a check that nothing is lost where SORL is good."""

VARIANTS: dict[str, str] = {
    "Sorl": "sorl",
    "expected max of 4": "sorl-plus --agent.backup-candidates 4",
    "expected max of 4, cloned": "sorl-plus --agent.backup-candidates 4 --agent.no-use-q-loss",
    "weighted cloning": "sorl-plus --agent.cloning-weight 0.01",
    "re-noised jumps": "sorl-plus --agent.renoise 3",
    "re-noised jumps, expected max of 4": "sorl-plus --agent.renoise 3 --agent.backup-candidates 4",
    "ten heads": "sorl-plus --agent.critic-heads 10",
    "ten heads, rho 0.5": "sorl-plus --agent.critic-heads 10 --agent.target-pessimism 0.5",
    "pessimistic verifier": "sorl-plus --agent.verifier-pessimism 1.0",
    "one jump: rows": "sorl-plus --agent.one-jump-share 0.7",
    "one jump: teacher": "sorl-plus --agent.teacher-rate 0.02",
    "one jump: Q loss": "sorl-plus --agent.q-step-weights 4 1 1",
    "one jump: distillation": "sorl-plus --agent.distillation-coefficient 10",
    "one jump: distillation 30": "sorl-plus --agent.distillation-coefficient 30",
    "one jump: distillation 100": "sorl-plus --agent.distillation-coefficient 100",
    "blind critic": "sorl-plus --agent.no-critic-sees-steps",
    "three steps": "sorl-plus --agent.n-step 3",
    "chunks of five": "sorl-plus --agent.chunk 5",
    "chunks of five, expected max of 4, cloned": (
        "sorl-plus --agent.chunk 5 --agent.backup-candidates 4 --agent.no-use-q-loss"
    ),
    "chunks of five, expected max of 4": "sorl-plus --agent.chunk 5 --agent.backup-candidates 4",
    "together": "sorl-plus --agent.backup-candidates 4 --agent.cloning-weight 0.01 --agent.distillation-coefficient 10",
    "Fql": "fql",
    "Fql, ten heads": "fql --agent.critic-heads 10",
    "Ifql": "ifql",
    "Ifql, ten heads": "ifql --agent.critic-heads 10",
    "Rebrac": "rebrac",
    "Rebrac, ten heads": "rebrac --agent.critic-heads 10",
}
"""The agents by name, each with its options; for networks with a grid of four steps."""

PUBLISHED_VARIANTS: dict[str, str] = {
    "re-noised jumps": "sorl-plus --agent.renoise 4",
    "re-noised jumps, expected max of 4": "sorl-plus --agent.renoise 4 --agent.backup-candidates 4",
    "one jump: Q loss": "sorl-plus --agent.q-step-weights 4 1 1 1",
}
"""Those whose options differ on the published grid of eight steps."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains every variant on every task, with the data's rewards and with sparse ones, and compares each with Sorl.

    Level `cpu`: `benchmarks/compare.py` with the quickstart's networks, for two CPU cores. Level `gpu`: published
    networks, all seeds of a variant in one run of `sorl.train`, for one GPU. If it is stopped, the same command
    continues; its table says which of its runs are not finished.
    """

    level: Literal["cpu", "gpu"] = "cpu"
    """Sizes of the runs."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Names of the variants; Sorl is always among them."""
    tasks: tuple[str, ...] = TASKS
    """OGBench's names of single-task data sets."""
    sparse_tasks: tuple[str, ...] = tuple(task for task in TASKS if task.startswith("scene"))
    """Those to train on sparse rewards too."""
    seeds: tuple[int, ...] | None = None
    """Training seeds; default: 1 and 2 (cpu), 0 to 3 (gpu)."""
    updates: int | None = None
    """Updates of each run; default: 60,000 (cpu), 1,000,000 (gpu)."""
    episodes: int | None = None
    """Generated episodes of each data set; default: 300 (cpu), 1,000 (gpu)."""
    jobs: int = 2
    """Level cpu: number of parallel runs, each on its share of the cores."""
    minutes: float = math.inf
    """Level gpu: minutes after which the current run is asked to save and stop."""
    options: str = ""
    """More options of `sorl.train` for all runs."""
    out: Path = Path("runs/ablate")
    """Directory for the runs and the tables."""

    def __post_init__(self):
        refuse_outside(self, updates=(1, MAX_COUNT), episodes=(1, MAX_COUNT))
        unknown = [name for name in self.variants if name not in VARIANTS]
        if unknown:
            raise ValueError(f"There is no variant {unknown[0]!r}; give some of {', '.join(VARIANTS)}.")

    @property
    def agents(self) -> dict[str, str]:
        """The variants' agents with their options, by name; Sorl first."""
        table = VARIANTS | (PUBLISHED_VARIANTS if self.level == "gpu" else {})
        return {name: one_at_a_time(table[name]) for name in dict.fromkeys(("Sorl", *self.variants))}

    @property
    def common(self) -> str:
        """The options of all runs."""
        cpu = self.level == "cpu"
        updates = self.updates or (60_000 if cpu else 1_000_000)
        given = f"--updates {updates} --data.episodes {self.episodes or (300 if cpu else 1_000)}"
        given += (
            f" --evaluation.interval {max(1, updates // 6)} --evaluation.episodes 25 --evaluation.final-episodes 25"
        )
        return f"{given} --evaluation.success-timing pre {self.options}".strip()


OFF = {"backup-candidates": "1", "use-q-loss": "", "cloning-weight": "None", "renoise": "0", "chunk": "1"}
"""The switches that the settings of SORL+ turn on in some environments, turned off."""


def one_at_a_time(words: str) -> str:
    """A variant's agent with the switches that it does not name turned off."""
    agent, *own = shlex.split(words)
    if agent != "sorl-plus":
        return words
    off = [f"--agent.{name} {value}".strip() for name, value in OFF.items() if not _named(name, own)]
    return " ".join([words, *off])


def _named(option: str, words: Sequence[str]) -> bool:
    return f"--agent.{option}" in words or f"--agent.no-{option}" in words


def main(config: Config) -> list[dict[str, Any]]:
    """Trains what is missing, prints the table and writes ablate.json and ablate.md; **returns** the table's rows."""
    rows, unfinished = [], []
    for form, tasks, more in (("default", config.tasks, ""), ("sparse", config.sparse_tasks, "--data.sparse-rewards")):
        if tasks:
            found, missing = (on_cpu if config.level == "cpu" else on_gpu)(config, form, tasks, more)
            rows += found
            unfinished += missing
            write(config, rows)  # also of a part, in case that the next one is stopped
    if unfinished:
        print(f"{len(unfinished)} runs are not finished, {unfinished[0]} first: run the same command again.")
    return rows


def on_cpu(config: Config, form: str, tasks: Sequence[str], more: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of `benchmarks/compare.py`, which trains what is missing, seed by seed."""
    table = compare.main(
        compare.Config(
            agents=tuple(config.agents.values()),
            tasks=tuple(tasks),
            seeds=config.seeds or (1, 2),
            options=f"{config.common} {more}".strip(),
            jobs=config.jobs,
            out=config.out / form,
        )
    )
    names = {words: name for name, words in config.agents.items()}
    results = read_json(config.out / form / "comparison.json")["rows"]
    rows = []
    for row in table:
        scores = {key: row[key] for key in ("headline", "headline_low", "headline_high", "seeds", "update_ms")}
        scores |= {"decision_ms": row["decision_ms"], "budget": f"{row['steps']}, {row['candidates']}"}
        own = [each for each in results if (each["agent"], each["task"]) == (row["agent"], row["task"])]
        grid = {"budgets": by_budget(own), "by_seed": by_seed(own)}
        rows.append({"variant": names[row["agent"]], "task": row["task"], "rewards": form} | scores | grid)
    return rows, []


def by_budget(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Success after training at each evaluated budget, over the seeds of `results`, by names such as "4, 1"."""
    counts: dict[str, list[int]] = {}
    for row in results:
        if row["kind"] == "after training":
            found = counts.setdefault(f"{row['steps']}, {row['candidates']}", [0, 0])
            found[0] += row["successes"]
            found[1] += row["episodes"]
    return {budget: successes / episodes for budget, (successes, episodes) in counts.items()}


def by_seed(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Success by kind of evaluation ("last three evaluations") and by budget, of each seed in their order."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in sorted(results, key=lambda row: row["seed"]):
        budgets = found.setdefault(row["kind"], {})
        budgets.setdefault(f"{row['steps']}, {row['candidates']}", []).append(row["successes"] / row["episodes"])
    return found


def on_gpu(config: Config, form: str, tasks: Sequence[str], more: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Trains one variant after the other, until the time is over; the rows of those with an evaluation."""
    rows, unfinished, end = [], [], _started + 60 * config.minutes
    seeds = config.seeds or (0, 1, 2, 3)
    for task in tasks:
        for name, words in config.agents.items():
            directory = config.out / form / task / name.replace(" ", "-").replace(",", "").replace(":", "")
            given = shlex.split(f"{config.common} {more}") + ["--matmul-precision", "tensorfloat32"]
            agent, *own = shlex.split(words)
            arguments = [f"agent:{agent}", "--env", task, *own, "--preset", "paper", *given]
            arguments += ["--seeds", *map(str, seeds)]
            refuse_other_options(directory, arguments)
            if not (directory / "evaluation.json").exists():
                if time.monotonic() >= end or not finish(arguments, directory, end):
                    unfinished.append(str(directory))
            if (directory / "metrics.jsonl").exists():
                rows += _row(name, task, form, directory, arguments)
    return rows, unfinished


_started = time.monotonic()


def refuse_other_options(directory: Path, arguments: list[str]) -> None:
    """Raises a `ValueError` if the directory holds a run with other options, which is not part of this ablation."""
    path, wanted = config_path(directory), with_absolute_paths(parse(arguments)[0])
    if path.exists() and (different := changes(read_config(path), wanted) - (FREE - {"updates"})):
        raise ValueError(
            f"The run in {directory} has other options ({', '.join(sorted(different))}); give the same, or another "
            "--out."
        )


def finish(arguments: list[str], directory: Path, end: float) -> bool:
    """Whether the run finished in time; if not, it was asked to save its state."""
    begun = (directory / "config.json").exists()
    own = ["--resume"] if begun else arguments
    process = subprocess.Popen([sys.executable, "-m", "sorl.train", *own, "--run-dir", str(directory), "--quiet"])
    try:
        code = process.wait(None if math.isinf(end) else max(0.0, end - time.monotonic()))
        # A run with a bad seed or a failed evaluation has finished, and ends with 1.
        if code and not (bad_seeds(directory) or (directory / "evaluation.json").exists()):
            raise RuntimeError(f"The run in {directory} ended with exit code {code}; its output says why.")
        return True
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _row(name: str, task: str, form: str, directory: Path, arguments: list[str]) -> list[dict[str, Any]]:
    """The run's last evaluations together, at its first budget; empty without an evaluation of a good seed."""
    settings = parse(arguments)[0]
    budget = settings.budgets(final=False)[0]
    bad = bad_seeds(directory)
    for seed in sorted(bad):
        print(f"{name} on {task}, seed {seed}, is left out: its losses became non-finite.")
    metrics = [row for row in read_metrics(directory) if row["seed"] not in bad]
    for row in headline(evaluation_rows(metrics, settings.evaluation.episodes)):
        if (row["inference_steps"], row["candidates"]) == (budget.inference_steps, budget.candidates):
            scores = {f"headline{end}": row[f"success{end}"] for end in ("", "_low", "_high")}
            finished = (directory / "evaluation.json").exists()
            own = {"variant": name, "task": task, "rewards": form, "seeds": row["seeds"], "finished": finished}
            return [own | scores | {"budget": f"{budget.inference_steps}, {budget.candidates}"}]
    return []


def compared(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row with its difference to Sorl on the same task and rewards, and whether the intervals decide it.

    Nothing is decided by a run that still has updates to make.
    """
    plain = {(row["task"], row["rewards"]): row for row in rows if row["variant"] == "Sorl"}
    found = []
    for row in rows:
        other = plain.get((row["task"], row["rewards"]))
        if other is None:
            continue
        decision = "unclear"
        if None not in (row["headline_low"], other["headline_low"]):
            decision = "helps" if row["headline_low"] > other["headline_high"] else decision
            decision = "hurts" if row["headline_high"] < other["headline_low"] else decision
        decision = "-" if row is other else decision
        decision = decision if other.get("finished", True) else "Sorl is not finished"
        decision = decision if row.get("finished", True) else "not finished"
        found.append(row | {"difference": row["headline"] - other["headline"], "decision": decision})
    return found


def write(config: Config, rows: Sequence[dict[str, Any]]) -> None:
    """Prints the table, and writes it with its protocol."""
    found = compared(rows)
    protocol = f"level {config.level}, {config.common}; success is the mean of the last three evaluations"
    lines = [f"`python benchmarks/ablate.py --level {config.level}`: {protocol}.", ""]
    for task, form in dict.fromkeys((row["task"], row["rewards"]) for row in found):
        own = [row for row in found if (row["task"], row["rewards"]) == (task, form)]
        own.sort(key=lambda row: -row["headline"])
        lines += [f"{task}, {form} rewards", ""]
        lines += ["| variant | M^inf, N | seeds | success | 95 % interval | to Sorl | ms an update | ms a decision | |"]
        lines += ["|---|---|---|---|---|---|---|---|---|"]
        for row in own:
            low, high = (row[f"headline_{end}"] for end in ("low", "high"))
            interval = "-" if low is None else f"{low:.2f} .. {high:.2f}"
            costs = " | ".join(f"{row[key]:.2f}" if key in row else "-" for key in ("update_ms", "decision_ms"))
            shown = f"| {row['variant']} | {row['budget']} | {row['seeds']} | {row['headline']:.2f} | {interval} "
            lines.append(f"{shown}| {row['difference']:+.2f} | {costs} | {row['decision']} |")
        lines += ["", *budget_lines(own)]
    text = "\n".join(lines).rstrip()
    print(text, flush=True)
    config.out.mkdir(parents=True, exist_ok=True)
    write_json(config.out / "ablate.json", {"protocol": protocol, "rows": found})
    with whole_file(config.out / "ablate.md") as file:
        file.write(f"{text}\n")


def budget_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A table of success at each budget after training, where some variant was evaluated at more than one."""
    budgets = list(dict.fromkeys(budget for row in rows for budget in row.get("budgets", ())))
    if all(len(row.get("budgets", ())) < 2 for row in rows):
        return []
    lines = ["| success after training at M^inf, N | " + " | ".join(budgets) + " |", "|---|" + "---|" * len(budgets)]
    for row in rows:
        found = (row.get("budgets", {}).get(budget) for budget in budgets)
        shown = " | ".join("-" if success is None else f"{success:.2f}" for success in found)
        lines.append(f"| {row['variant']} | {shown} |")
    return [*lines, ""]


def command() -> int:
    """Runs the command line; **returns** 1 if some of the runs failed."""
    try:
        words = with_joined_options(sys.argv[1:])
        main(command_line.parse(Config, words, prog="python benchmarks/ablate.py"))
    except compare.FailedRuns as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    return 0
