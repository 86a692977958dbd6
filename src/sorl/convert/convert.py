"""Writes the episodes of a recording to a file or directory that training reads."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sorl.convert.npz_writer import NpzWriter
from sorl.data import records
from sorl.data.mapped.writer import MappedWriter
from sorl.data.recorded import checks
from sorl.data.recorded.digest import digest
from sorl.data.recorded.episodes import LoggedEpisode, Recording
from sorl.system.files import make_directory, refuse_other_file
from sorl.system.progress import Progress


@dataclasses.dataclass
class Converted:
    """What was converted."""

    recording: Recording
    path: Path
    episodes: int = 0
    steps: int = 0
    terminated: int = 0
    """Episodes that end with a termination."""
    truncated: int = 0
    """Episodes that the source says were cut."""
    without_last_state: int = 0
    """Episodes whose state after the last step is unknown."""
    has_times: bool = False
    """Whether the source has times of the steps, which own logs have no place for."""
    held_out: list[int] = dataclasses.field(default_factory=list)
    """The numbers of the episodes that the source itself keeps for validation."""
    notes: list[str] = dataclasses.field(default_factory=list)

    def text(self) -> str:
        """A few lines for the terminal."""
        found, rest = self.recording, self.episodes - self.terminated
        lines = [
            ("from", f"{found.path} ({found.form})"),
            ("episodes", f"{self.episodes:,}: {self.terminated:,} terminated, {rest:,} cut; {self.steps:,} steps"),
            ("observations", f"{len(found.observation_names)}: {_listed(found.observation_names)}"),
            ("actions", f"{len(found.action_names)}: {_listed(found.action_names)}"),
            ("rewards", str(found.details.get("reward", "as logged"))),
        ]
        if found.frame_rate:
            lines.append(("frame rate", f"{found.frame_rate:g} a second"))
        if left_out := [*found.left_out, *(["times"] if self.has_times else [])]:
            lines.append(("left out", _listed(left_out)))
        if count := len(self.held_out):
            lines.append(("held out", f"{count:,} episode{'s' * (count > 1)} by the source's own split"))
        if self.without_last_state:
            lines.append(("last state", f"unknown after {self.without_last_state:,} episodes"))
        if found.environment:
            lines.append(("environment", found.environment))
        return "\n".join([f"Wrote {self.path}", *(f"  {title:<13}{words}" for title, words in lines)])


def convert(recording: Recording, out: Path, *, quiet: bool = False) -> Converted:
    """Writes a recording to `out`, whole or not at all, with its provenance.

    **Arguments:** `out`, a path that does not exist: a file `NAME.npz`, or a directory; `quiet`, whether to hide the
    progress bar.

    Raises a `ValueError` for data that cannot be used, and an `OSError`, one sentence, if the system refuses.
    """
    done = Converted(recording, out)
    if out.suffix and out.suffix != ".npz":
        raise ValueError(f"{out} ends in {out.suffix}; give NAME.npz, or the name of a directory without an ending.")
    make_directory(out.parent)
    if out.suffix:
        # A conversion that was killed may have left its record.
        refuse_other_file(records.record_path(out), b'{\n  "size": ')
        with NpzWriter(out, recording.action_limits) as writer:
            _copy(recording, writer.append, done, quiet)
            writer.provenance |= _provenance(done)
        return done
    with MappedWriter(out, action_range=recording.action_limits) as writer:
        _copy(recording, lambda episode: _append(writer, episode), done, quiet)
        writer.provenance |= _provenance(done)
    return done


def _append(writer: MappedWriter, episode: LoggedEpisode) -> None:
    steps = len(episode.actions)
    ends = np.arange(steps) == steps - 1
    writer.append(
        {
            "observations": episode.observations[:steps],
            "actions": episode.actions,
            "rewards": episode.rewards,
            "terminations": episode.terminated,
            "truncations": ends & episode.truncated,
        },
        final_observation=episode.observations[-1] if episode.has_last_state else None,
    )


def _provenance(done: Converted) -> dict[str, Any]:
    """The origin of converted data, JSON-able; it names the source without its directory."""
    recording = done.recording
    counted = ("episodes", "steps", "terminated", "truncated", "without_last_state")
    return {
        "source": "converted",
        "about": {**recording.about(), **({"held_out": done.held_out} if done.held_out else {})},
        "converted_from": {"name": recording.path.name, **digest(recording.files, recording.path)},
        "counts": {name: getattr(done, name) for name in counted},
        "notes": done.notes,
    }


def _copy(recording: Recording, append: Callable[[LoggedEpisode], None], done: Converted, quiet: bool) -> None:
    with Progress(recording.steps, quiet=quiet, unit="steps") as progress:
        first = None
        for episode in checks.episodes(recording, done.notes):
            # Episodes of a narrower dtype than the first are widened, which loses nothing.
            first = first or episode
            for name in ("observations", "actions", "rewards"):
                kind = getattr(first, name).dtype
                episode = episode._replace(**{name: getattr(episode, name).astype(kind, copy=False)})
            append(episode)
            if episode.name in recording.held_out:
                done.held_out.append(done.episodes)
            done.episodes += 1
            done.steps += len(episode.actions)
            done.terminated += bool(episode.terminated[-1])
            done.truncated += episode.truncated
            done.has_times |= episode.times is not None
            done.without_last_state += not episode.has_last_state
            progress.advance(len(episode.actions))


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return f"{shown}, .. ({len(names)})" if len(names) > most else shown
