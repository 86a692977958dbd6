"""A data directory as a stream of episodes."""

import pathlib
from collections.abc import Iterator

import numpy as np

from sorl.data.checks import whole_numbers_note
from sorl.data.mapped.manifest import NAME
from sorl.data.mapped.reader import episode_starts, open_arrays, verify
from sorl.data.paging import release
from sorl.data.recorded.episodes import LoggedEpisode, Recording
from sorl.data.recorded.keys import column_names
from sorl.data.recorded.origin import with_origin


RELEASED_ROWS = 1 << 16
"""Number of steps after which the pages of the mapped files that were read are released."""
NEEDED = ("observations", "actions", "rewards", "terminations")


def recording(path: pathlib.Path) -> Recording:
    """The episodes of a data directory; raises a `ValueError` if it lacks rewards or terminations.

    Its `read` raises a `ValueError` before the first episode if a block differs from its checksum.
    """
    manifest, arrays = open_arrays(path)
    missing = [name for name in NEEDED if name not in arrays]
    if missing:
        raise ValueError(f"{path} has no {' and no '.join(missing)}; write all of {', '.join(NEEDED)} to it.")

    def read(notes: list[str]) -> Iterator[LoggedEpisode]:
        verify(path)  # what is read is written elsewhere, where damage could not be found any more
        if arrays["actions"].dtype.kind in "iu":
            notes.append(whole_numbers_note(path))
        starts, released = episode_starts(arrays["episode_lengths"]), 0
        for number, (start, stop) in enumerate(zip(starts[:-1], starts[1:], strict=True)):
            step = {name: np.array(arrays[name][start:stop]) for name in NEEDED}
            observations, actions = step["observations"], step["actions"]
            if arrays["final_known"][number]:
                observations = np.concatenate([observations, arrays["final_observations"][number : number + 1]])
            truncations = arrays.get("truncations")
            yield LoggedEpisode(
                observations,
                actions.astype(np.float64) if actions.dtype.kind in "iu" else actions,
                step["rewards"],
                step["terminations"].astype(np.bool_),
                not step["terminations"][-1] if truncations is None else bool(truncations[stop - 1]),
                f"episode {number}",
                int(start),
            )
            if stop - released >= RELEASED_ROWS:
                release(*arrays.values())
                released = stop

    found = Recording(
        path=path,
        form="data directory",
        read=read,
        observation_names=tuple(column_names("observations", arrays["observations"].shape[1])),
        action_names=tuple(column_names("actions", arrays["actions"].shape[1])),
        files=(path / NAME,),
        steps=manifest.rows,
        action_limits=manifest.action_range,
    )
    return with_origin(found, manifest.provenance.get("about"))
