"""The names of a report's methods: the agent of a run, and how the run differs from other runs of the agent."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from sorl.agents.registry import word
from sorl.config.changes import by_dotted_name
from sorl.config.json_form import to_json
from sorl.config.options import TrainConfig
from sorl.report.run import ReportedRun
from sorl.statistics.rows import Row


DECISION = ("noise_scale", "policy_conditioning", "critic_conditioning", "verifier")
"""The columns of `evaluation.json`, if it has them, that say how all of its decisions were made."""

GENERATION = ("data.episodes", "data.generation_seed")
"""Options, by dotted name, that name the data well enough where they differ."""

IRRELEVANT = (
    *("env", "seeds", "population", "evaluation", "log_interval", "checkpoint_interval", "seed_mapping"),
    *("data.path", "data.directory", "data.mirrors", "data.download", "data.residence"),
)
"""Options, by dotted name, in which runs of one method may differ, because they change no policy but by rounding."""


def method_names(runs: Sequence[ReportedRun]) -> list[str]:
    """The agent of each run, with the options, data and evaluations in which its runs on the same task differ.

    An option that differs only between tasks is part of a preset, and so does not make a different method.
    """
    options = [_options(run.config) | _judgement(run) | data for run, data in zip(runs, _data(runs), strict=True)]
    apart: dict[str, set[str]] = defaultdict(set)
    for run, own in zip(runs, options, strict=True):
        for other_run, other in zip(runs, options, strict=True):
            if (_agent(run), run.task) == (_agent(other_run), other_run.task):
                differing = {name for name in own.keys() & other.keys() if own[name] != other[name]}
                apart[_agent(run)] |= differing - {"data"} if differing & {*GENERATION} else differing
    return [
        ", ".join([_agent(run), *(_named(name, own[name]) for name in sorted(apart[_agent(run)] & own.keys()))])
        for run, own in zip(runs, options, strict=True)
    ]


def _agent(run: ReportedRun) -> str:
    return word(type(run.config.agent))


def _options(config: TrainConfig) -> dict[str, str]:
    """The options in which methods may differ, by dotted name."""
    return {
        name: "x".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in by_dotted_name(to_json(config)).items()
        if name not in IRRELEVANT and name.partition(".")[0] not in IRRELEVANT
    }


def _data(runs: Sequence[ReportedRun]) -> list[dict[str, str]]:
    """The name of each run's data, with the beginning of their SHA-256 if other data of the task have that name."""
    known = {(run.task, run.data): run.data_name for run in reversed(runs) if run.data}
    count = Counter((task, name) for (task, _), name in known.items())
    found = []
    for run in runs:
        name = known.get((run.task, run.data), "")
        short = re.sub(r"([0-9a-f]{8})[0-9a-f]{56}", r"\1", run.data)
        found.append({"data": name if count[run.task, name] == 1 else f"{name} {short}"} if run.data else {})
    return found


def _judgement(run: ReportedRun) -> dict[str, str]:
    """How success is judged, and the evaluations that scores are read from: what they depend on besides the policy.

    The numbers of episodes and of other budgets are left out: they make a score more precise, but change no mean.
    """
    evaluation = run.config.evaluation
    found = {"success_timing": evaluation.success_timing}
    if evaluation.interval:
        found["evaluation_interval"] = str(evaluation.interval)
        found |= {name: str(getattr(run.budget, name)) for name in ("inference_steps", "candidates")}
    if run.table:
        found["table"] = " and ".join(departures_of_table(run.config, run.table)) or "as usual"
    return found


def departures_of_table(config: TrainConfig, table: Sequence[Row]) -> list[str]:
    """How the table after training departs from the evaluations during it, as `sorl.evaluate` can make it.

    **Arguments:** `table`, the rows of `evaluation.json`, at least one.
    """
    usual = {name: value for name, value in to_json(config.budgets(final=False)[0]).items() if name in DECISION}
    usual |= {"env": config.env, "success_timing": config.evaluation.success_timing}
    row = {name: value for name, value in table[0].items() if (name, value) != ("success_timing", None)}
    return [_named(name, str(row[name])) for name in usual if row.get(name, usual[name]) != usual[name]]


def _named(option: str, value: str) -> str:
    name = option.rsplit(".", 1)[-1].replace("_", " ")
    return {"True": name, "False": f"no {name}"}.get(value, f"{name} {value}")
