"""The plan of a sweep: read from a file, written into its directory, and compared with the plan that is there."""

import dataclasses
import json
import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from sorl.config.changes import changes
from sorl.config.json_form import from_json, to_json
from sorl.config.options import read_config
from sorl.config.own_agents import OwnAgents
from sorl.runs.run import config_path
from sorl.runs.sweeps import PLAN, VERSION, SweepRun, is_sweep, read_plan
from sorl.sweep.grid import SWITCHES, Grid, PlannedRun
from sorl.system import command_line
from sorl.system.files import make_directory, read_json, write_json
from sorl.train.resuming import FREE


CONFIG = "planned.json"
"""The file in a run directory with the options that the run is started with."""
NOT_COMPARED = FREE - {"updates", "data.path", "data.columns"}
"""Options in which runs of one sweep may differ; not the paths of the data, because other files may be other data."""
_REMEDY = "give a description of a sweep in TOML or JSON"


@dataclasses.dataclass(frozen=True)
class GridFile:
    """The options on which the defaults of a sweep's other options depend."""

    config: Path | None = None
    own_agents: Annotated[OwnAgents, tyro.conf.arg(name="")] = dataclasses.field(default_factory=OwnAgents)


def grid_of_file(words: Sequence[str], prog: str, otherwise: Grid) -> Grid:
    """The grid of the file that `--config` names on a command line, or `otherwise`.

    Raises a `ValueError`, one sentence, as `read_grid` does, and for a file with modules of agents that the command
    line does not name: a file must not choose which code runs.
    """
    words = [word for word in words if word not in ("-h", "--help")]
    found, _ = command_line.read(GridFile, words, prog=prog, add_help=False)
    if found.config is None:
        return otherwise
    grid = read_grid(found.config)
    _refuse_modules(found.config, set(grid.agent_module) - set(found.own_agents.agent_module))
    return dataclasses.replace(grid, agent_module=())


def read_grid(path: Path) -> Grid:
    """Reads the description of a sweep from a TOML or JSON file, such as the `sweep.json` of another sweep.

    The fields are those of `Grid`; `set` may be a table of lists, such as `{"agent.q-coefficient": [10, 50]}`. Raises a
    `ValueError`, one sentence, if the file is damaged or has an unknown or wrong field.
    """
    if path.suffix == ".toml":
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(f"There is no file {path}; {_REMEDY}.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no TOML: {error}; {_REMEDY}.") from error
    else:
        values = read_json(path, _REMEDY)
        values = values["grid"] if "runs" in values and isinstance(values.get("grid"), dict) else values
    return from_json(Grid, to_json(Grid()) | _with_lists(values), str(path))


def write_plan(out: Path, grid: Grid, runs: Sequence[PlannedRun], *, extend: bool) -> list[SweepRun]:
    """Writes `sweep.json`, and the options of each run into its directory.

    **Arguments:** `extend`, whether the runs may be added to those of another sweep in the directory.

    **Returns:** all runs of the directory. Raises a `ValueError`, one sentence that names the difference, if the
    directory holds another sweep, or a run with other options.
    """
    before = check_plan(out, grid, runs, extend=extend)
    for planned in runs:
        path = out / planned.run.directory / CONFIG
        # Options that change no numbers, such as the number of workers, may be others than before.
        if not path.exists() or changes(read_config(path), planned.config):
            make_directory(path.parent)
            write_json(path, to_json(planned.config))
    together = {run.directory: run for run in (*before, *(planned.run for planned in runs))}
    content = {"version": VERSION, "grid": to_json(grid)}
    content |= {"runs": [dataclasses.asdict(run) for run in together.values()]}
    # Lists and tuples are the same in JSON.
    if not is_sweep(out) or read_json(out / PLAN) != json.loads(json.dumps(content)):
        write_json(out / PLAN, content)
    return list(together.values())


def check_plan(out: Path, grid: Grid, runs: Sequence[PlannedRun], *, extend: bool) -> list[SweepRun]:
    """**Returns** the runs that the directory holds; raises as `write_plan` does, and writes nothing."""
    before = _refuse_another_sweep(out, grid, runs, extend=extend)
    for planned in runs:
        _refuse_another_run(out / planned.run.directory, planned)
    return before


def _refuse_modules(file: Path, modules: set[str]) -> None:
    if modules:
        words = shlex.join([word for name in sorted(modules) for word in ("--agent-module", name)])
        raise ValueError(f"{file} has runs of {', '.join(sorted(modules))}; add {words} if that code may run.")


def _modules(file: Path, words: Sequence[str]) -> list[str]:
    """The modules of agents in the options of a run; raises a `ValueError` for options that no sweep writes."""
    found, left = [], [word for word in words if word not in SWITCHES]
    while left[:1] == ["--agent-module"] and len(left) > 1:
        found.append(left[1])
        left = left[2:]
    # Another spelling of an option could name a module too.
    if left:
        raise ValueError(f"{file} has a run with the option {left[0]!r}, which no sweep has; restore it from a copy.")
    return found


def _with_lists(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a file with `set` as a list of lists of words."""
    table = values.get("set")
    if not isinstance(table, dict):
        return values
    lists = {name: found if isinstance(found, list) else [found] for name, found in table.items()}
    return values | {"set": [[name, *map(_words, found)] for name, found in lists.items()]}


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _refuse_another_sweep(out: Path, grid: Grid, runs: Sequence[PlannedRun], *, extend: bool) -> list[SweepRun]:
    """**Returns** the runs that the directory holds; raises a `ValueError` if they do not go together with these."""
    if not is_sweep(out):
        return []
    before, old = read_plan(out)
    wanted = json.loads(json.dumps(to_json(grid)))
    changed = [name for name in wanted if wanted[name] != before.get(name)]
    if changed and not extend:
        named = ", ".join(f"{name} was {before.get(name)!r} and is {wanted[name]!r}" for name in changed)
        raise ValueError(f"{out} holds another sweep: {named}; give another --out, or add --extend to add these runs.")
    named = {name for run in old for name in _modules(out / PLAN, run.words)}
    _refuse_modules(out / PLAN, named - set(grid.agent_module))
    alike = {_learned(planned.run): planned for planned in runs}
    trained = {(*_learned(planned.run), seed): planned.run for planned in runs for seed in planned.run.seeds}
    for run in old:
        # Tables pool the seeds of one method on one task, so that all of them need the same options.
        other = alike.get(_learned(run))
        if other is not None and (different := _differences(out, run, other)):
            raise ValueError(
                f"{out} was planned with other options of {run.title} ({', '.join(sorted(different))}); give the same "
                "options and use the same version of sorl, or give another --out."
            )
        twice = [trained.get((*_learned(run), seed), run) for seed in run.seeds]
        if any(one.directory != run.directory for one in twice):
            raise ValueError(f"{out} holds {run.title}, which these runs would train again; give other --seeds.")
    return old


def _learned(run: SweepRun) -> tuple[str, str, str]:
    """What a run learns, without its seeds: the agent, the task or the name of own logs, and what the sweep varies."""
    return run.agent, Path(run.directory).parts[1], str(run.settings)


def _differences(out: Path, run: SweepRun, planned: PlannedRun) -> set[str]:
    """The options in which a planned run differs from one of the directory, apart from its seeds."""
    path = out / run.directory / CONFIG
    different = changes(read_config(path), planned.config) - {"seeds"} - NOT_COMPARED if path.exists() else set()
    return different or (set() if run.digest == planned.run.digest else {"unknown ones"})


def _refuse_another_run(directory: Path, planned: PlannedRun) -> None:
    for path in (config_path(directory), directory / CONFIG):
        if path.exists() and (different := changes(read_config(path), planned.config) - NOT_COMPARED):
            raise ValueError(
                f"The run in {directory} has other options ({', '.join(sorted(different))}); give another --out, or "
                "remove it."
            )
