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
from sorl.pretrained.addresses import INDEX
from sorl.pretrained.index import FORMAT, FORMAT_VERSION, NAME
from sorl.runs.run import load_run
from sorl.statistics.intervals import BUDGET_FIELDS, paired_difference
from sorl.system import entry
from sorl.system.files import make_directory, read_json, write_json


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
    """Training seed of the policy."""


def main(config: Config) -> None:
    """Writes both files."""
    if NAME.fullmatch(config.name) is None:
        raise ValueError(f"The name is {config.name!r}; give lower-case letters, digits and single hyphens.")
    run, policy = load_run(config.run), load_policy(config.run, config.seed)
    # The operating system's name says more of a machine than of its policy.
    versions = {name: value for name, value in policy.provenance["versions"].items() if name != "platform"}
    scores = _scores(config.run, config.seed)
    policy = dataclasses.replace(policy, provenance=policy.provenance | {"versions": versions}).with_scores(scores)
    make_directory(config.out)
    path = config.out / f"{config.name}.sorl"
    policy.save(path)
    content, index = path.read_bytes(), config.out / INDEX
    found = read_json(index) if index.exists() else {"format": FORMAT, "format_version": FORMAT_VERSION, "policies": {}}
    found["policies"][config.name] = {
        "file": path.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "description": config.description,
        "algorithm": policy.algorithm,
        "env": run.env,
        "seed": config.seed,
        "updates": run.step,
        "command": config.command,
        "success_timing": run.config.evaluation.success_timing,
        "versions": {name: value for name, value in versions.items() if isinstance(value, str)},
        "scores": scores,
    }
    write_json(index, found)
    print(f"Wrote {path} and its entry in {index}")


def _scores(directory: Path, seed: int) -> list[dict[str, Any]]:
    """A row for each budget of the last evaluation, with the paired difference to the first on the same episodes."""
    rows = [row for row in read_json(directory / "evaluation.json")["rows"] if row["training_seed"] == seed]
    rows = [row for row in rows if row["step"] == max(row["step"] for row in rows)]
    outcomes = [np.array([row["success"]], float) for row in rows]
    kept = (*BUDGET_FIELDS, "episodes", "successes", "success_low", "success_high", "success_timing")
    return [
        {name: row[name] for name in kept}
        | {"success": float(own.mean())}
        | paired_difference(own, outcomes[0])._asdict()
        for row, own in zip(rows, outcomes, strict=True)
    ]


def command() -> None:
    """Runs the command line."""
    main(entry.parse(Config, prog="python benchmarks/publish.py"))
