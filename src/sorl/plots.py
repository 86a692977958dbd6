"""`python -m sorl.plots RUN --out picture.png`: plots a run (needs matplotlib: pip install 'sorl[plots]')."""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("sorl.plots")

import dataclasses
import re
import shlex
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from sorl.config.options import read_config
from sorl.config.own_agents import OwnAgents
from sorl.policy import bad_seeds
from sorl.report.population import draw_score_against_value
from sorl.runs.metrics import read_metrics
from sorl.runs.run import config_path, refuse_no_run
from sorl.statistics.measures import RETURN, SUCCESS, measure_of
from sorl.statistics.missing_success import reports_success, with_success
from sorl.statistics.rows import member_of, settings, settings_text
from sorl.statistics.tables import score_interval, summarise
from sorl.system import command_line
from sorl.system.files import make_directory, read_rows
from sorl.system.pictures import legend, plain, pyplot_without_screen, write_picture


COLUMNS = (
    "env",
    "data_source",
    "data_episodes",
    "training_seed",
    "inference_steps",
    "candidates",
    "successes",
    "episodes",
)
"""The columns of `evaluation.json` that the picture needs."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Plots the success (or return) of a run during training, and at every compute budget after training."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory that `sorl.train` or `sorl.evaluate` has evaluated."""
    out: Path = Path("run.png")
    """File of the picture, in any format that matplotlib can write; its directory is created if missing."""
    own_agents: Annotated[OwnAgents, tyro.conf.arg(name="")] = dataclasses.field(default_factory=OwnAgents)
    """Agents of your own."""


def main(config: Config) -> None:
    """Writes the picture; raises a `FileNotFoundError` if the run has not been evaluated yet."""
    pyplot = pyplot_without_screen()  # fails before the work if it is missing
    config.own_agents.load()
    # Refuse a run without evaluations, and say whether it can have any.
    path = config.run / "evaluation.json"
    evaluate = f"python -m sorl.evaluate {shlex.join([str(config.run), *config.own_agents.words])}"
    if not path.exists():
        refuse_no_run(config.run)
        if read_config(config_path(config.run)).env is None:
            raise ValueError(
                f"{config.run} was trained on logs without an environment, so it has no evaluations to draw; read its "
                "losses in metrics.csv."
            )
        raise FileNotFoundError(f"{path} is missing; run {evaluate} first.")
    # Seeds whose losses became non-finite are left out of both pictures.
    make_directory(config.out.parent)
    bad = bad_seeds(config.run)
    again = f"run {evaluate} again"
    rows = [row for row in read_rows(path, "rows", COLUMNS, again) if member_of(row) not in bad]
    if not rows:
        raise ValueError(
            f"{path} has no rows of seeds whose losses stayed finite; train again with a lower agent.learning_rate."
        )
    if bad:
        noun = "member" if settings(rows[0]) else "seed"
        print(f"Left out because losses became non-finite in training: {noun} {', '.join(map(str, sorted(bad)))}.")
    # Learning curves on the left; on the right budgets, or a population's values. The title names the data, because
    # they limit any comparison.
    fields = [*settings(rows[0])]
    columns = 1 + max(1, len(fields))
    figure, (left, *others) = pyplot.subplots(1, columns, figsize=(4.5 * columns, 3.4), layout="constrained")
    draw_learning_curves(left, [row for row in read_metrics(config.run) if member_of(row) not in bad])
    if not fields:
        draw_budgets(others[0], rows)
    for axes, field in zip(others, fields, strict=False):
        draw_score_against_value(axes, summarise(rows), field)
    seeds = sorted({row["training_seed"] for row in rows})
    data = f"{rows[0]['data_source']} data, {rows[0]['data_episodes']} episodes"
    title = f"{rows[0]['env']}, {data}, training seeds {', '.join(map(str, seeds))}"
    figure.suptitle(plain(title), fontsize=10)
    write_picture(figure, config.out)
    print(f"Wrote {config.out}")


def draw_learning_curves(axes: Any, rows: list[dict[str, Any]]) -> None:
    """Success (or return) against updates: a line for each budget, the mean over seeds, and a point for each seed.

    In a population there is a line for each budget and combination of hyper-parameters. A missing success counts as
    none if another row has one.
    """
    if judged := reports_success(rows):
        rows = [with_success(row) for row in rows]
    measure = SUCCESS if judged else RETURN
    curves: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name, value in row.items():
            if match := re.fullmatch(rf"evaluation/{measure.name}/(M\d+N\d+(?:-.+)?)", name):
                label = ", ".join([*filter(None, [settings_text(settings(row))]), _budget_label(match[1])])
                curves[label][row["step"]].append(measure.factor * value)
    for label, points in curves.items():
        steps = sorted(points)
        (line,) = axes.plot(steps, [np.mean(points[step]) for step in steps], label=plain(label))
        for step in steps:
            axes.plot([step] * len(points[step]), points[step], ".", color=line.get_color(), alpha=0.5)
    axes.set(xlabel="updates", title="while training", **measure.axis)
    axes.locator_params(axis="x", nbins=5)
    legend(axes)


def draw_budgets(axes: Any, rows: list[dict[str, Any]]) -> None:
    """Success (or return) against inference steps: a line for each number of candidates, with 95 % intervals."""
    measure = measure_of(rows)
    groups: dict[tuple[int, int], list[list[dict[str, Any]]]] = defaultdict(list)
    for row in rows:
        groups[row["candidates"], row["inference_steps"]].append([row])
    for shift, candidates in enumerate(sorted({n for n, _ in groups})):
        steps = sorted(steps for n, steps in groups if n == candidates)
        intervals = [score_interval(groups[candidates, m], measure) for m in steps]
        means, low, high = measure.factor * np.array([interval[:3] for interval in intervals], float).T
        places = np.log2(steps) + 0.06 * shift
        label = "one sample" if candidates == 1 else f"best of {candidates}"
        axes.errorbar(places, means, np.abs([means - low, high - means]), marker="o", capsize=3, label=label)
    ticks = sorted({steps for _, steps in groups})
    axes.set_xticks(np.log2(ticks), [str(tick) for tick in ticks])
    axes.set(xlabel="inference steps $M^{inf}$", title="at every compute budget", **measure.axis)
    legend(axes)


def _budget_label(name: str) -> str:
    sizes, _, verifier = name.partition("-")
    steps, candidates = re.findall(r"\d+", sizes)
    best = "" if candidates == "1" else f", best of {candidates}"
    return f"{steps} step{'s' * (steps != '1')}{best}{f' by {verifier}' * bool(verifier)}"


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python -m sorl.plots"))
