"""Records the bad training seeds of a run: a loss was not finite, so their training stopped and kept an older policy.

It is separate from the training code, so that a policy can be chosen where only the requirements of acting are present.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from sorl.system.files import read_json, write_json


def write_bad_seeds(directory: Path, first_bad_updates: Mapping[int, int]) -> None:
    """Records a run's bad seeds with their first non-finite update; an empty record means that all seeds are good."""
    write_json(_path(directory), {str(seed): update for seed, update in first_bad_updates.items()})


def find_bad_seeds(directory: Path, policy_steps: Mapping[int, int]) -> set[int]:
    """The bad seeds of a run directory.

    **Arguments:** `policy_steps`, the number of updates of each seed's policy. A run of version 0.1.0 has no record;
    there, a seed is bad if its policy is older than the others.

    Raises a `ValueError` that names the record if it is damaged.
    """
    path = _path(directory)
    if path.exists():
        return {int(seed) for seed in _read(path)}
    last = max(policy_steps.values(), default=0)
    return {seed for seed, step in policy_steps.items() if step < last}


def has_record(directory: Path) -> bool:
    """Whether the run has a record of bad seeds; runs of version 0.1.0 have none."""
    return _path(directory).exists()


def left_out(bad: Iterable[int], policy_steps: Mapping[int, int], kind: str = "seed") -> str:
    """One sentence that names the bad seeds, or those of another `kind`, and the update of each one's policy."""
    named = ", ".join(f"{kind} {seed} (policy of update {policy_steps[seed]})" for seed in bad)
    return f"Left out because losses became non-finite in training: {named}; name a {kind} to use it all the same."


def _path(directory: Path) -> Path:
    return directory / "bad_seeds.json"


def _read(path: Path) -> dict[str, int]:
    remedy = "continue the run with --resume, which writes it again"
    record = read_json(path, remedy)
    if not all(seed.isdecimal() and type(update) is int for seed, update in record.items()):
        raise ValueError(f"{path} holds {record!r} instead of seeds with an update each; {remedy}.")
    return record
