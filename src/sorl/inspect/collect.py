"""One pass over the episodes of a recording: everything that the data report needs of them."""

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Shaped

from sorl.data.recorded import checks
from sorl.data.recorded.episodes import LoggedEpisode, Recording
from sorl.inspect.repeats import Repeats
from sorl.inspect.sample import Reservoir, Steps
from sorl.inspect.tracker import Tracker


SAMPLED_STEPS = 20_000
"""Steps that are kept for histograms and nearest neighbours; all others count only in sums."""


@dataclasses.dataclass
class Collected:
    """What one pass found."""

    recording: Recording
    observations: Tracker
    actions: Tracker
    sample: Steps
    names: list[str]
    """The name of each episode."""
    lengths: Shaped[np.ndarray, " episodes"]
    rewards: Float[np.ndarray, " steps"]
    terminated: Shaped[np.ndarray, " steps"]
    truncated: Shaped[np.ndarray, " episodes"]
    has_last_state: Shaped[np.ndarray, " episodes"]
    duplicate_steps: int
    """Steps whose observation and action are those of an earlier step (see `Repeats`)."""
    duplicate_episodes: int
    intervals: Float[np.ndarray, " intervals"] | None
    """Seconds between steps, if the source has times."""
    notes: list[str]

    @property
    def ends(self) -> Shaped[np.ndarray, " steps"]:
        """Whether a step is the last of its episode."""
        ends = np.zeros(len(self.rewards), np.bool_)
        ends[np.cumsum(self.lengths) - 1] = True
        return ends

    @property
    def terminated_inside(self) -> Shaped[np.ndarray, " steps"]:
        """Whether a step terminates, but its episode goes on, as OGBench's do after a task's goal is reached."""
        return self.terminated & ~self.ends

    @property
    def starts(self) -> Shaped[np.ndarray, " episodes"]:
        """The first step of each episode."""
        return np.cumsum(self.lengths) - self.lengths


def collect(recording: Recording, advance: Callable[[int], None] = lambda steps: None) -> Collected:
    """Reads all episodes once.

    **Arguments:** `advance`, which is called with the number of steps of each episode that was read.

    Raises a `ValueError` for data that cannot be used.
    """
    notes: list[str] = []
    observations, actions = Tracker(len(recording.observation_names)), Tracker(len(recording.action_names))
    reservoir = Reservoir(SAMPLED_STEPS)
    repeats = Repeats(observations.low.size + actions.low.size)
    times, rows = [], []
    for number, episode in enumerate(checks.episodes(recording, notes)):
        steps = len(episode.actions)
        observations.add(episode.observations, episode.name)
        actions.add(episode.actions, episode.name)
        reservoir.add(Steps(episode.observations[:steps], episode.actions, np.full(steps, number)))
        repeats.add(episode.observations[:steps], episode.actions)
        if episode.times is not None:
            times.append(np.diff(episode.times.astype(np.float64)).astype(np.float32))
        # Copies, because views would keep the whole episode in memory.
        kept = episode.rewards.copy(), episode.terminated.copy()
        rows.append((episode.name, steps, *kept, episode.truncated, episode.has_last_state, _digest(episode)))
        advance(steps)
    names, lengths, rewards, terminated, truncated, has_last_state, digests = zip(*rows, strict=True)
    return Collected(
        recording=recording,
        observations=observations,
        actions=actions,
        sample=reservoir.steps(),
        names=list(names),
        lengths=np.array(lengths),
        rewards=np.concatenate(rewards).astype(np.float64),
        terminated=np.concatenate(terminated),
        truncated=np.array(truncated),
        has_last_state=np.array(has_last_state),
        duplicate_steps=repeats.count(),
        duplicate_episodes=len(digests) - len(set(digests)),
        intervals=np.concatenate(times) if times else None,
        notes=notes,
    )


def _digest(episode: LoggedEpisode) -> bytes:
    """A digest of the whole episode."""
    digest = hashlib.sha256()
    for array in (episode.observations, episode.actions, episode.rewards):
        digest.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
    return digest.digest()
