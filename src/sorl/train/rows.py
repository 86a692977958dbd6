"""The rows that training adds to a run's metrics: mean losses, validation losses, and the excess of values."""

import dataclasses
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sorl.agents.shared.metrics import SHARED
from sorl.config.options import TrainConfig
from sorl.data import LoadedData
from sorl.train import loop
from sorl.train.members import Members
from sorl.train.value_range import ValueWatch


@dataclasses.dataclass(frozen=True)
class Logged:
    """The rows and messages of one step."""

    rows: dict[int, dict[str, Any]]
    """Metrics by training seed, or by member of a population."""
    shown: dict[str, float]
    """Losses shown beside the progress bar, means over seeds."""
    warnings: list[str]
    """One sentence for each seed whose values have just left their range."""
    validation_seconds: float


class TrainingRows:
    """Computes the rows of a run.

    **Arguments:** `config`; `data`; `members`, which computes the validation losses; `earlier`, the run's
    existing rows, whose warnings are not repeated.
    """

    def __init__(self, config: TrainConfig, data: LoadedData, members: Members, earlier: Iterable[Mapping[str, Any]]):
        self._config, self._members = config, members
        self._watch: ValueWatch | None = None
        if hasattr(config.agent, "discount"):  # other agents have no values
            self._watch = ValueWatch(config.members, data.train.reward_limits(), earlier)

    def are_due(self, step: int) -> bool:
        """Whether a step has rows: every multiple of the log interval, and the last update.

        If a run is extended, the row of its former last update is kept, and the means of the next row also cover the
        updates before that one, back to the last multiple.
        """
        return step > 0 and (step % self._config.log_interval == 0 or step == self._config.updates)

    def make(self, state: loop.TrainState, good_seeds: Mapping[int, int]) -> Logged:
        """The rows of a state, with means since the last multiple of the interval.

        **Arguments:** `good_seeds`, the index along the state's leading axis of each seed or member that still trains.
        """
        step, interval = int(state.step), self._config.log_interval
        means = {name: np.asarray(sums) / (step % interval or interval) for name, sums in state.metric_sums.items()}
        start = time.perf_counter()
        held_out = self._members.validation_losses(state)
        validation_seconds = time.perf_counter() - start
        rows = {
            seed: {f"training/{name}": mean[index] for name, mean in means.items()}
            | {f"validation/{name}": loss[index] for name, loss in held_out.items()}
            for seed, index in good_seeds.items()
        }
        warnings = self._watch.check(step, rows) if self._watch else []
        places = list(good_seeds.values())
        shown = {name: float(means[name][places].mean()) for name in shown_losses(means) if places}
        return Logged(rows, shown, warnings, validation_seconds)

    def verdicts(self) -> list[str]:
        """A sentence for each seed whose last row has a value outside its range."""
        return self._watch.verdicts() if self._watch else []


def shown_losses(names: Iterable[str]) -> list[str]:
    """The losses beside the progress bar: every one but `policy_loss`, which is the sum of others; the shared first."""
    losses = {name for name in names if name.endswith("_loss") and name != "policy_loss"}
    return [name for name in SHARED if name in losses] + sorted(losses - SHARED.keys())
