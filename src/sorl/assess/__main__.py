"""`python -m sorl.assess RUN --data DATA`: judges a policy by logged data, without a simulator."""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("sorl.assess.__main__")

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import jax
import tyro

from sorl.agents import Budget
from sorl.assess.fitted_q import FitOptions
from sorl.assess.measure import assess
from sorl.assess.pictures import save_pictures
from sorl.assess.record import Assessment, write_assessment
from sorl.assess.subject import Subject, load_subject
from sorl.assess.table import text
from sorl.config.json_form import to_json
from sorl.config.options import DataConfig
from sorl.config.own_agents import OwnAgents
from sorl.evaluate.options import DecisionOptions
from sorl.runs.directory import assessment_path
from sorl.system import command_line, compilation
from sorl.system.files import make_directory, refuse_unwritable
from sorl.system.progress import Progress
from sorl.system.ranges import refuse_outside


@dataclasses.dataclass(frozen=True)
class Config:
    """Judges a policy by held-out logged episodes: its value, its distance to the data, and its critic.

    Three tables are printed, and sentences about how far to trust them. Nothing is simulated: what the data do not
    hold, such as the result of actions that nobody tried, is not known afterwards either.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory, or a policy file."""
    env: str | None = None
    """OGBench's name of the data set, if they are OGBench's data; default: the run's own."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    """Data to judge by, in the units of the policy's task, by their held-out episodes; default: those that the run was
    trained on."""
    seed: int | None = None
    """Training seed of the policy in a run directory, or its member of a population; default: the lowest."""
    inference_steps: tuple[int, ...] | None = None
    """Numbers of inference steps M^inf; default: the policy's own."""
    candidates: tuple[int, ...] | None = None
    """Numbers of candidate actions N, from which the critic picks one; default: the policy's usual number."""
    decision: Annotated[DecisionOptions, tyro.conf.arg(name="")] = dataclasses.field(default_factory=DecisionOptions)
    """How a decision is made, at any budget."""
    discount: float | None = None
    """Discount of future rewards per step, in [0, 1]; default: the agent's, or 0.99 for an agent without one."""
    fit: FitOptions = dataclasses.field(default_factory=FitOptions)
    """The fitted Q evaluation."""
    states: int = 2_000
    """Held-out states in which actions and critics are judged, at most."""
    samples: int = 8
    """Actions drawn in each state, at each budget."""
    out: Path | None = None
    """Directory for assessment.json, which `sorl.report` shows, and the pictures; default: the run directory, and no
    files for a policy file."""
    json: bool = False
    """Print the result as JSON instead of tables."""
    pictures: bool = False
    """Draw values, distances and calibrations (needs matplotlib: pip install 'sorl[plots]')."""
    compilation_cache: bool = True
    """Cache compiled programs in a private directory, which makes later starts faster."""
    own_agents: Annotated[OwnAgents, tyro.conf.arg(name="")] = dataclasses.field(default_factory=OwnAgents)
    """Agents of your own."""
    quiet: bool = False
    """Hide the progress bar."""

    def __post_init__(self):
        refuse_outside(self, discount=(0.0, 1.0), states=(1, 1_000_000), samples=(1, 10_000))


def main(config: Config) -> Assessment:
    """Assesses the policy, prints the tables and writes the files; **returns** the result."""
    config.own_agents.load()
    if config.compilation_cache:
        compilation.enable_cache()
    directory = config.out or (config.run if config.run.is_dir() else None)
    if directory is not None:  # fail before the work
        make_directory(directory)
        refuse_unwritable(directory)
    elif config.pictures:
        raise ValueError(
            f"{config.run} is a policy file, beside which no pictures are written; give a directory as --out."
        )
    subject = load_subject(config.run, seed=config.seed, env=config.env, data=config.data, discount=config.discount)
    budgets = _budgets(config, subject)
    with jax.default_matmul_precision("float32"), Progress(config.fit.updates, quiet=config.quiet) as progress:
        sizes = {"states": config.states, "samples": config.samples}
        found = assess(subject, budgets, config.fit, advance=progress.advance, **sizes)
    lines = [json.dumps(to_json(found), indent=2) if config.json else text(found)]
    # The files come before the text, whose reader may be gone; and the text also if the files cannot be written.
    try:
        if directory is not None:
            lines += _write(directory, found, config)
    finally:
        print(*lines, sep="\n")
    return found


def _write(directory: Path, found: Assessment, config: Config) -> list[str]:
    """Writes the files, and **returns** a line about each; with `--json`, none."""
    path = assessment_path(directory)
    write_assessment(path, found)
    written = [path, *(save_pictures(directory, found) if config.pictures else [])]
    return [] if config.json else [f"Wrote {one}" for one in written]


def _budgets(config: Config, subject: Subject) -> tuple[Budget, ...]:
    own = subject.policy.actor.budgets
    candidates = (own.usual.candidates,) if config.candidates is None else config.candidates
    return tuple(config.decision.budgets(own, config.inference_steps, candidates))


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python -m sorl.assess"))
