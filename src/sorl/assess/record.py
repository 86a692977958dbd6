"""The result of an assessment, and its file `assessment.json`, which a report reads."""

import dataclasses
from pathlib import Path

from sorl.agents import Budget
from sorl.assess.fitted_q import FitOptions
from sorl.config.json_form import from_json, to_json
from sorl.system.files import read_json, write_json


FORMAT = 1
"""Version of the file's format."""
REMEDY = "write it again with python -m sorl.assess"


@dataclasses.dataclass(frozen=True)
class PolicyFacts:
    """Which policy was assessed."""

    algorithm: str
    env: str | None
    seed: int | None
    step: int | None
    """Number of updates of the policy."""
    digest: str
    """SHA-256 of the actor and all arrays."""
    member: int | None = None
    """Its number in a population; None without one."""


@dataclasses.dataclass(frozen=True)
class DataFacts:
    """The data of an assessment."""

    source: str
    episodes: int
    """Episodes that the critics were fitted on."""
    held_out_episodes: int
    """Episodes at whose first states the values were read: those that are as long as a decision."""
    held_out_states: int
    """Held-out states at which actions and critics were judged; in each of them a whole decision was logged."""
    discount: float
    """gamma per step of the environment."""
    discount_from: str
    """Where the discount comes from, in words."""
    agents_discount: float | None = None
    """The discount of the agent's own values; None if its record has none."""
    caution: str = ""
    """What of these data may have been trained on: one sentence; empty if nothing, or if the policy has no record."""
    chunk: int = 1
    """Number of actions in a decision of the policy."""


@dataclasses.dataclass(frozen=True)
class Value:
    """A fitted value: the mean over the first states of the held-out episodes, with its uncertainty."""

    value: float
    value_low: float
    """End of the 95 % bootstrap interval over episodes, which does not include the error of the fit."""
    value_high: float
    everywhere: float
    """The mean over all judged held-out states."""
    heads: float
    """Standard deviation of the mean value between critic heads."""
    drift: float
    """Change of the mean value over the last fifth of the updates."""


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """The policy that made the logs."""

    returned: float
    """Mean discounted return of the held-out episodes; beyond a time-out it counts the fitted value."""
    returned_low: float
    returned_high: float
    beyond: float
    """Mean weight of what lies beyond the time-outs, in [0, 1]."""
    fitted: Value
    neighbour_distance: tuple[float, ...]
    """Distance of held-out logged actions to logged actions in near states, for each action dimension."""
    jerk: float
    """Mean length of the third differences of the logged actions."""


@dataclasses.dataclass(frozen=True)
class AtBudget:
    """The policy at one budget. Actions are in units of half their range."""

    budget: Budget
    fitted: Value
    gain: float
    """The fitted value minus that of the behaviour, in the same states."""
    gain_low: float
    gain_high: float
    own_value: float | None
    """The mean value by the policy's own critic; None if it holds none."""
    energy_score: float
    """How well samples of the policy predict the logged actions: 0 is best."""
    neighbour_distance: tuple[float, ...]
    """Distance of the policy's actions to logged actions in near states, for each action dimension."""
    outside: tuple[float, ...]
    """Share of the policy's actions outside the logged range, for each action dimension."""
    jerk: float
    """Mean length of the third differences of its actions along held-out trajectories."""

    @property
    def over_estimation(self) -> float | None:
        """The own critic's value minus the fitted one."""
        return None if self.own_value is None else self.own_value - self.fitted.value


@dataclasses.dataclass(frozen=True)
class Bin:
    """Held-out states with like predicted values."""

    predicted: float
    returned: float
    states: int


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A critic's values of logged actions against the discounted returns that followed."""

    critic: str
    """Which critic: fitted or own, and of which policy."""
    rank_correlation: float | None
    """Spearman's; None if all values or all returns are equal."""
    bias: float
    """Mean of predicted minus returned."""
    error: float
    """Mean absolute difference."""
    disagreement: float
    """Mean standard deviation between the heads."""
    bins: tuple[Bin, ...]


@dataclasses.dataclass(frozen=True)
class Assessment:
    """What logged data say about a policy."""

    policy: PolicyFacts
    data: DataFacts
    fit: FitOptions
    behaviour: Behaviour
    budgets: tuple[AtBudget, ...]
    calibrations: tuple[Calibration, ...]
    notes: tuple[str, ...]
    """How far to trust the numbers, and what was left out and why: a sentence each."""
    format: int = FORMAT


def write_assessment(path: Path, assessment: Assessment) -> None:
    """Writes an assessment as JSON, atomically."""
    write_json(path, to_json(assessment))


def read_assessment(path: Path) -> Assessment:
    """Reads an assessment; raises a `ValueError`, one sentence, for a damaged file or one of another format."""
    content = read_json(path, REMEDY)
    if content.get("format") != FORMAT:
        raise ValueError(f"{path} has format {content.get('format')!r} instead of {FORMAT}; {REMEDY}.")
    return from_json(Assessment, content, str(path))
