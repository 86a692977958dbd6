"""What a run's policy scores at every budget: stored in the policy, which becomes an entry of a pretrained index."""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("publish")

import dataclasses
import hashlib
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from sorl.policy import load_policy
from sorl.policy.file import FORMAT as POLICY
from sorl.pretrained.addresses import INDEX
from sorl.pretrained.index import FORMAT, FORMAT_VERSION, NAME, parse
from sorl.statistics.intervals import paired_difference
from sorl.statistics.rows import BUDGET_FIELDS, member_of
from sorl.system import command_line
from sorl.system.files import make_directory, read_json, read_rows, refuse_other_file, write_json


@dataclasses.dataclass(frozen=True)
class Config:
    """Writes a run's policy with the scores of its last evaluation, and its entry in the index beside it."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory with an evaluation at several budgets."""
    name: str
    """Name of the policy, of lower-case letters, digits and hyphens."""
    command: str
    """The command that trained the run, which users can repeat."""
    description: str
    """One sentence for the list."""
    out: Path = Path("src/sorl/pretrained")
    """Directory of the index."""
    seed: int = 0
    """Training seed of the policy, or its member of a population."""


def main(config: Config) -> None:
    """Writes both files; nothing is written if the policy or its scores are refused."""
    if NAME.fullmatch(config.name) is None:
        raise ValueError(f"The name is {config.name!r}; give lower-case letters, digits and single hyphens.")
    policy = load_policy(config.run, config.seed)
    # The operating system's name says more of a machine than of its policy.
    versions = {name: value for name, value in policy.provenance["versions"].items() if name != "platform"}
    step = policy.provenance["step"]
    rows = _rows(config.run, config.seed, step)
    scores = _scores(rows)
    policy = dataclasses.replace(policy, provenance=policy.provenance | {"versions": versions}).with_scores(scores)
    path, index = config.out / f"{config.name}.sorl", config.out / INDEX
    found: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION, "policies": {}}
    if index.exists():
        found = read_json(index)  # refuses a pipe, whose opening would block
        parse(index.read_bytes(), str(index))  # refuses what is no index
    refuse_other_file(path, f"{POLICY} ".encode())
    timing = rows[0]["success_timing"]  # None if the environment judges success itself
    about = {
        "description": config.description,
        "algorithm": policy.algorithm,
        "env": rows[0]["env"],
        "seed": rows[0]["training_seed"],
        "updates": step,
        "command": config.command,
        **({} if timing is None else {"success_timing": timing}),
        "versions": {name: value for name, value in versions.items() if isinstance(value, str)},
        "scores": scores,
    }
    make_directory(config.out)
    policy.save(path)
    content = path.read_bytes()
    digest = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    found["policies"][config.name] = {"file": path.name} | digest | about
    write_json(index, found)
    print(f"Wrote {path} and its entry in {index}")


_KEPT = (*BUDGET_FIELDS, "episodes", "successes", "success_low", "success_high", "success_timing")
"""The fields of an evaluation's row that a score has too."""


def _rows(directory: Path, seed: int, step: int) -> list[dict[str, Any]]:
    """The rows of a seed in the table of the last evaluation.

    Raises a `ValueError` if there are none, if one is not of the policy's `step`, or if one has no success.
    """
    path, again = directory / "evaluation.json", f"evaluate it with python -m sorl.evaluate {directory}"
    columns = (*_KEPT, "training_seed", "step", "env", "success")
    rows = [row for row in read_rows(path, "rows", columns, again) if member_of(row) == seed]
    if not rows:
        raise ValueError(f"{path} has no row of seed {seed}; {again}.")
    if others := sorted({row["step"] for row in rows} - {step}):
        raise ValueError(
            f"{path} has scores of update {', '.join(map(str, others))}, and the policy of seed {seed} is of update "
            f"{step}; {again} again."
        )
    if any(row["success"] is None for row in rows):
        raise ValueError(f"{path} has rows without a success; publish a policy whose environment reports one.")
    return rows


def _scores(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A score for each budget, with the paired difference to the least one on the same episodes."""
    rows = sorted(rows, key=lambda row: (row["candidates"], row["inference_steps"]))  # evaluated in any order
    outcomes = [np.array([row["success"]], float) for row in rows]
    return [
        {name: row[name] for name in _KEPT}
        | {"success": float(own.mean())}
        | paired_difference(own, outcomes[0])._asdict()
        for row, own in zip(rows, outcomes, strict=True)
    ]


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python benchmarks/publish.py"))
