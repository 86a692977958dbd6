"""The software, hardware and numeric settings that a run's numbers depend on."""

import hashlib
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

from sorl.config.options import TrainConfig
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
