"""The sections of a report: their text, tables and pictures."""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sorl.report import pictures
from sorl.report.assessments import add_assessments
from sorl.report.grid import add_grid
from sorl.report.origins import add_origins
from sorl.report.page import Page
from sorl.report.paper_table import add_published
from sorl.report.population import draw_score_against_value
from sorl.report.run import ReportedRun
from sorl.report.scores import Scores, last_evaluations, scores, task_measure
from sorl.report.times import add_times
from sorl.statistics.aggregates import (
    fewest_seeds,
    interquartile_mean,
    interval_text,
    known_ends,
    probability_of_improvement,
)
from sorl.statistics.intervals import Interval
from sorl.statistics.measures import SUCCESS, Measure
from sorl.statistics.tables import headline, score_interval


class Report:
    """The sections of a page: each method adds one section, and writes its pictures to `directory` too."""

    def __init__(self, page: Page, runs: Sequence[ReportedRun], directory: Path):
        self._page, self._runs, self._directory = page, runs, directory
        self._scores: Scores = scores(runs)
        self._last = last_evaluations(runs)
        self._taken: Counter[str] = Counter()
        self._tasks = list(dict.fromkeys(run.task for run in runs))
        self._measures = {task: task_measure(runs, task) for task in self._tasks}

    def untrusted(self) -> None:
        """Adds the runs whose values are outside the range that their data's rewards allow, if there are any."""
        found = [(run.directory, *item) for run in self._runs for item in run.departures.items()]
        if found:
            self._page.section("Values that the rewards do not allow")
        for directory, seed, (step, lasting) in found:
            left = f"{directory}, seed {seed}: values left the range that the data's rewards allow at update {step}"
            end = " and are outside it in the last row: do not trust this policy." if lasting else ", and came back."
            self._page.text(left + end)

    def curves(self) -> None:
        """Adds the learning curves: success, or return, during training."""
        self._page.section("Learning curves")
        evaluated = [run for run in self._runs if run.evaluations]
        if not evaluated:
            if self._played():
                self._page.text("None of the runs was evaluated during training (--evaluation.interval of sorl.train).")
            else:
                self._page.text("None of the runs has an environment, so none was evaluated.")
            return
        self._page.text(
            "Success of the evaluations during training, at each run's first budget, by default the agent's usual one; "
            "the mean over training seeds. The band is a 95 % interval: Wilson's over the episodes, or Student's t "
            f"over seeds where that is wider.{self._about_returns()}"
        )
        for task in self._tasks:
            own = [run for run in evaluated if run.task == task]
            if own:
                self._draw(f"curves-{task}", lambda axes, own=own: pictures.learning_curves(axes, own), width=7.5)

    def final_scores(self) -> None:
        """Adds the final score of each method on each task, and over all tasks."""
        self._page.section("Final scores")
        if not self._scores:
            self._page.text("None of the runs was evaluated during training, so none has a score.")
            return
        self._page.text(
            "A run's score is the mean success of its last three evaluations during training, never that of its best "
            "checkpoint. 95 % intervals are Wilson's over the episodes, or Student's t over training seeds where that "
            f"is wider.{self._about_returns()}"
        )
        rows = []
        for task in self._tasks:
            intervals, measure = self._task_intervals(task), self._measures[task]
            for method, interval in intervals.items():
                seeds = len(self._scores[method][task])
                score = measure.text(interval.mean), measure.range(interval.low, interval.high)
                rows.append([task, method, f"{seeds}", *score])
            if intervals:
                draw = _estimates(intervals, f"{measure.label}, last three evaluations", measure)
                self._draw(f"score-{task}", draw, width=7.5, height=1.2 + 0.4 * len(intervals))
        score = "score" if self._returned() else "success"
        self._page.table(["task", "method", "seeds", score, "95 % interval"], rows)
        # Returns of different environments have no common scale.
        judged = [task for task in self._tasks if self._measures[task] == SUCCESS]
        everywhere = {method: own for method, own in self._scores.items() if own.keys() >= set(judged)}
        if len(judged) > 1 and everywhere:
            self._over_tasks(everywhere, judged)

    def populations(self) -> None:
        """Adds the score of each population against each of its hyper-parameters, if there are any."""
        groups: dict[Path, list[ReportedRun]] = defaultdict(list)
        for run in self._runs:
            if run.settings and run.evaluations:
                groups[run.directory].append(run)
        if groups:
            self._page.section("Populations")
            self._page.text(
                "The mean of the last three evaluations during training against each hyper-parameter, over training "
                "seeds, with 95 % intervals."
            )
        for directory, own in groups.items():
            found = headline([row for run in own for row in run.evaluations])
            self._page.text(f"{directory}, {own[0].task}:")
            for field in own[0].settings:
                self._draw(
                    f"population-{directory.name}-{field}",
                    lambda axes, found=found, field=field: draw_score_against_value(axes, found, field),
                    width=7.5,
                )

    def published(self) -> None:
        """Adds the published scores beside the runs' own, where the runs' tasks have any."""
        add_published(self._page, self._runs)

    def improvement(self) -> None:
        """Adds the probability that each method beats each other one."""
        if len(self._scores) < 2:
            return
        self._page.section("Probability of improvement")
        self._page.text(
            "The probability that a run of the first method scores higher than a run of the second, on a task drawn at "
            "random from those that both were run on; a tie counts one half. 95 % intervals resample seeds within "
            "tasks, need several, and are at least as wide as Wilson's over pairs without a common seed."
        )
        rows, drawn = [], {}
        for (first, one), (second, other) in itertools.combinations(self._scores.items(), 2):
            shared = [task for task in self._tasks if task in one and task in other]
            if shared:
                pair = [one[task] for task in shared], [other[task] for task in shared]
                found = probability_of_improvement(*pair)
                seeds = fewest_seeds(*pair)
                drawn[f"{first} > {second}"] = found.value, *known_ends(found, seeds)
                interval = interval_text(found, seeds)
                rows.append([first, second, f"{len(shared)}", f"{found.value:.3f}", interval])
        if not rows:
            self._page.text("No two methods were run on the same task.")
            return
        if len(rows) <= 30:
            draw = _estimates(drawn, "probability (%)", middle=0.5)
            width = 6.0 + 0.07 * max(map(len, drawn))  # a letter of a label is 0.07 inches wide
            self._draw("improvement", draw, width=width, height=1.2 + 0.35 * len(rows))
        self._page.table(["first", "second", "tasks", "probability", "95 % interval"], rows)

    def budgets(self) -> None:
        """Adds the success at larger compute budgets: more inference steps and more candidates."""
        self._page.section("Compute budgets")
        for task in self._tasks:
            own = [run for run in self._runs if run.task == task and len(_steps(run)) > 1]
            if own:
                self._page.text(f"{task}: the evaluations that sorl.train or sorl.evaluate made after the last update.")
                self._draw(f"steps-{task}", lambda axes, own=own: pictures.score_against_steps(axes, own), width=7.5)
        for run in self._runs:
            if run.pairs:
                add_grid(self._page, run, self._draw)
        if any(run.pairs for run in self._runs):
            return
        place = (self._played() or self._runs)[0].place
        if self._played():
            self._page.text(f"For a grid of steps and candidates with latencies: python -m sorl.scaling {place}")
        else:
            limit = f"python -m sorl.policy {place} --latency-ms 10"
            self._page.text(f"Without an environment only latencies can be measured: {limit}")

    def ablations(self) -> None:
        """Adds the ablations of M^BTT and of the policy's width, on tasks whose runs differ in them."""
        for task in self._tasks:
            own = [run for run in self._runs if run.task == task and run.table]
            jumping = [run for run in own if pictures.backprop_steps_of(run) is not None]
            jumping = [run for run in jumping if pictures.has_single_samples(run)]
            if len({pictures.backprop_steps_of(run) for run in jumping}) > 1:
                self._page.section(f"Jumps trained through, {task}")

                def draw(left: Any, right: Any, jumping: Any = jumping) -> None:
                    pictures.budget_bars(left, jumping)
                    pictures.backprop_steps_ablation(right, jumping)

                self._draw(f"backprop-steps-{task}", draw, columns=2)
            own = [run for run in own if pictures.rows_at_own_budget(run)]
            if len({pictures.width_of(run) for run in own}) > 1:
                self._page.section(f"Width of the policy, {task}")
                self._draw(f"width-{task}", lambda axes, own=own: pictures.width_ablation(axes, own), width=7.5)

    def assessments(self) -> None:
        """Adds what logged data alone say about each run, if one was assessed."""
        add_assessments(self._page, self._runs, self._draw)

    def times(self, files: Sequence[Path]) -> None:
        """Adds the times of updates and decisions, from files written by `benchmarks/runtime.py`."""
        add_times(self._page, files, self._draw)

    def film(self, steps: Sequence[int], episode: int, env: str | None) -> None:
        """Adds frames of an episode of the first run with an environment, or of the first that can be played in `env`.

        Raises a `ValueError` if there is none.
        """
        from sorl.report.film_strip import film_strip

        played = self._played() if env is None else [run for run in self._runs if run.config.env in (None, env)]
        if not played and env is None:
            raise ValueError("None of the runs has an environment to film; name one with --film-env.")
        if not played:
            raise ValueError(f"Every run was trained with another environment than {env}; leave --film-env out.")
        run = played[0]
        path = film_strip(run.directory, steps, episode, self._directory / "film.png", env)
        seed = next(seed for seed in run.config.seeds if seed not in run.bad_seeds)
        self._page.section("One episode")
        self._page.text(
            f"{run.task}, {run.method}, seed {seed}: episode {episode} of an evaluation, from its start (left) to its "
            f"end, at {' and '.join(map(str, steps))} inference steps."
        )
        self._page.picture(path, "Frames of one episode, a row for each number of inference steps")

    def origins(self, command: str) -> None:
        """Adds the table of runs and the commands that repeat them; `command` is the one that repeats this page."""
        add_origins(self._page, self._runs, command)

    def _played(self) -> list[ReportedRun]:
        """The runs that have an environment."""
        return [run for run in self._runs if run.config.env is not None]

    def _returned(self) -> list[str]:
        """The evaluated tasks whose runs are compared by the return."""
        evaluated = {run.task for run in self._runs if run.evaluations or run.table}
        return [task for task in self._tasks if task in evaluated and self._measures[task] != SUCCESS]

    def _about_returns(self) -> str:
        """A sentence about the tasks whose environment reports no success, if there are any."""
        if not self._returned():
            return ""
        return (
            f" {', '.join(self._returned())}: the environment reports no success, so the score is the return, with a "
            "bootstrap interval over the episodes of a single seed."
        )

    def _over_tasks(self, everywhere: Scores, tasks: Sequence[str]) -> None:
        scores = {method: [own[task] for task in tasks] for method, own in everywhere.items()}
        means = {method: (interquartile_mean(own), fewest_seeds(own)) for method, own in scores.items()}
        some = "all" if len(tasks) == len(self._tasks) else "the"
        self._page.text(
            f"Over {some} {len(tasks)} tasks{'' if some == 'all' else ' with success'}: the interquartile mean of all "
            "scores, with 95 % intervals that resample seeds within tasks; only methods that were run on every task."
        )
        drawn = {method: (found.value, *known_ends(found, seeds)) for method, (found, seeds) in means.items()}
        draw = _estimates(drawn, "interquartile mean of success (%)")
        self._draw("interquartile-mean", draw, width=7.5, height=1.2 + 0.4 * len(means))
        rows = [[method, f"{found.value:.3f}", interval_text(found, seeds)] for method, (found, seeds) in means.items()]
        self._page.table(["method", "interquartile mean", "95 % interval"], rows)

    def _task_intervals(self, task: str) -> dict[str, Interval]:
        """Each method's success on a task with its interval, the best method first."""
        found = {
            method: score_interval(own[task], self._measures[task]) for method, own in self._last.items() if task in own
        }
        return dict(sorted(found.items(), key=lambda item: -item[1].mean))

    def _draw(self, name: str, draw: Callable[..., None], **sizes: Any) -> None:
        path = pictures.save(self._directory / f"{self._file_name(name)}.png", draw, **sizes)
        self._page.picture(path, name.replace("-", " "))

    def _file_name(self, name: str) -> str:
        """The name as a unique file name: other characters become dashes, and a repeated name gets a number."""
        plain = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)[:80]
        self._taken[plain] += 1
        return plain if self._taken[plain] == 1 else f"{plain}-{self._taken[plain]}"


def _estimates(
    rows: Mapping[str, Any], label: str, measure: Measure = SUCCESS, middle: float | None = None
) -> Callable[[Any], None]:
    return lambda axes: pictures.estimates(axes, rows, label, measure, middle)


def _steps(run: ReportedRun) -> set[int]:
    return {row["inference_steps"] for row in run.table}
