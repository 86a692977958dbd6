"""The software, hardware and numeric settings that a run's numbers depend on, and their record in the run."""

import hashlib
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

from sorl.config.options import TrainConfig
from sorl.runs.phases import phases
from sorl.system.files import read_json, write_json
from sorl.system.packages import installed_version


PACKAGES = ("sorl", "jax", "jaxlib", "equinox", "optax", "orbax-checkpoint", "numpy", "ogbench", "mujoco", "gymnasium")


def versions(config: TrainConfig) -> dict[str, Any]:
    """The software, hardware and numeric settings that a run's numbers depend on, ready for JSON."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "git_commit": _git_commit(),
        "source_sha256": source_digest(Path(__file__).parents[1]),
        "success_timing": config.evaluation.success_timing,
        **numerics(),
        **{package: installed_version(package) for package in PACKAGES},
    }


def numerics() -> dict[str, Any]:
    """The values of JAX's options that change the numbers of a training."""
    names = (
        "jax_enable_x64",
        "jax_default_prng_impl",
        "jax_threefry_partitionable",
        "jax_default_matmul_precision",
    )
    return {name: getattr(jax.config, name) for name in names}


def source_digest(package: Path) -> str:
    """SHA-256 of the names and contents of a package's modules; it also identifies code that is not committed."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _git_commit() -> str | None:
    """The last commit of the package's source; None if the package is not in a git checkout."""
    source = Path(__file__).parents[1]
    try:
        found = subprocess.run(
            ["git", "-C", str(source), "log", "-1", "--format=%H", "--", "."],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() or None


def record_versions(
    directory: Path, config: TrainConfig, provenance: dict[str, Any], *, step: int = 0, new_phase: bool = False
) -> None:
    """Writes `versions.json`, or adds the current versions to it if a run is resumed under different ones.

    **Arguments:** `provenance`, that of the data; `step`, the update that the run continues from; `new_phase`, whether
    it continues on other data, which are then recorded with the step.

    `sorl.train.resuming.restore` has checked before that the run may continue on these data.
    """
    path, now = directory / "versions.json", versions(config)
    if not path.exists():
        write_json(path, now | {"data": provenance})
        return
    # Drop the phases after the update that the run continues from, and add the new one.
    recorded = read_json(path)
    before = [phase for phase in phases(directory) if phase["from_step"] <= step]
    if new_phase:
        before = [phase for phase in before if phase["from_step"] < step] or before[:1]
        before.append({"from_step": step, "data": provenance})
    # Add the versions of this session only if they differ from those of the last one.
    updated = dict(recorded)
    if any(_sessions(directory)[-1].get(name) != value for name, value in now.items()):
        updated["resumed"] = [*recorded.get("resumed", []), now]
    if before[1:] or "phases" in recorded:
        updated["phases"] = before[1:]
    if updated != recorded:
        write_json(path, updated)


def refuse_other_numerics(directory: Path) -> None:
    """Raises a `ValueError` if JAX's numeric options differ from those that the run was trained with.

    Version 0.1.0 did not record these options; its runs are checked against the first later session that did.
    """
    sessions = _sessions(directory)
    for name, value in numerics().items():
        before = next((session[name] for session in sessions if name in session), value)
        if before != value:
            raise ValueError(
                f"The run in {directory} was trained with {name} = {before!r}, and here it is {value!r}; set it back "
                f"(the environment variable {name.upper()} may change it) to continue."
            )


def _sessions(directory: Path) -> list[dict[str, Any]]:
    """The versions of a run: those of its first session, and of each later session that had other ones."""
    path = directory / "versions.json"
    recorded = read_json(path)
    later = recorded.get("resumed", [])
    if not isinstance(later, list) or not all(isinstance(one, dict) for one in later):
        raise ValueError(f"{path} does not say under which versions the run was resumed; restore it from a copy.")
    return [recorded, *later]
