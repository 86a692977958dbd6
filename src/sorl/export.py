"""`python -m sorl.export RUN`: a policy at one budget as a StableHLO program that runs without sorl."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.export
import jax.numpy as jnp
import tyro

from sorl import exported
from sorl.files import whole_file, write_sealed
from sorl.json_form import to_json
from sorl.policy import Policy, act, load_policy


PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@dataclasses.dataclass(frozen=True)
class Config:
    """Exports a policy at one budget.

    The program takes a batch of observations [batch, observation] of any size in the environment's units, and standard
    normal noise [batch, candidates, action]; it returns actions [batch, action] in the environment's units.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Run directory, or a policy file."""
    out: Path = Path("policy.stablehlo")
    """File to write."""
    steps: int | None = None
    """Sequential budget M^inf, in jumps from noise to action; none takes what the policy acts at."""
    candidates: int | None = None
    """Parallel budget N, in actions drawn, of which the critic picks one; none takes what the policy acts at."""
    noise_scale: float | None = None
    """Factor on the noise: 1 as trained, 0 for the deterministic path; none takes what the policy acts at."""
    platforms: tuple[str, ...] = ("cpu", "cuda")
    """Where it is to run, of cpu, cuda, rocm and tpu."""
    seed: int | None = None
    """Training seed of the policy in a run directory; none takes the lowest."""
    with_loader: bool = False
    """Write the loader beside it, `exported.py`, which needs jax, flatbuffers and numpy only."""


def main(config: Config) -> None:
    """Exports, and prints what was written."""
    policy = load_policy(config.run, config.seed)
    given = {"inference_steps": config.steps, "candidates": config.candidates, "noise_scale": config.noise_scale}
    budget = dataclasses.replace(policy.budget, **{name: x for name, x in given.items() if x is not None})
    save_exported(policy.with_budget(budget), config.out, config.platforms)
    print(f"Wrote {config.out}: {budget.name}, for {', '.join(config.platforms)}")
    if config.with_loader:
        loader = config.out.parent / "exported.py"
        with whole_file(loader, "wb") as file:
            file.write(Path(exported.__file__).read_bytes())
        print(f"Wrote {loader}")


def save_exported(policy: Policy, path: str | Path, platforms: Sequence[str] = ("cpu", "cuda")) -> None:
    """Writes the policy, at the budget that it acts at unless told otherwise, as one sealed file.

    `sorl.exported.load_exported` reads it. **Arguments:** `platforms`, of `PLATFORMS`. Raises a `ValueError` for
    another platform, or for an agent that draws anything but one array.
    """
    program = export(policy, platforms)
    noise = program.in_avals[1]
    header = {
        "agent": to_json(policy.agent),
        "observation_size": policy.observation_size,
        "action_size": policy.action_size,
        "noise_shape": list(noise.shape[1:]),
        "budget": to_json(policy.budget),
        "platforms": list(program.platforms),
        "jax": jax.__version__,
        "calling_convention_version": program.calling_convention_version,
        "provenance": policy.provenance,
    }
    write_sealed(Path(path), exported.FORMAT, exported.FORMAT_VERSION, header, bytes(program.serialize()))


def export(policy: Policy, platforms: Sequence[str] = ("cpu", "cuda")) -> jax.export.Exported:
    """The policy at its budget as a program (observations, noise) -> actions with a symbolic batch size.

    Raises as `save_exported` does.
    """
    unknown = [platform for platform in platforms if platform not in PLATFORMS]
    if unknown or not platforms:
        raise ValueError(f"The platforms are {', '.join(platforms) or 'none'}; give some of {', '.join(PLATFORMS)}.")
    (batch,) = jax.export.symbolic_shape("batch")
    observations = jax.ShapeDtypeStruct((batch, policy.observation_size), jnp.float32)
    noise = _draws(policy)
    noise = jax.ShapeDtypeStruct((batch, *noise.shape), noise.dtype)

    @jax.jit
    def decide(observations, noise):
        return act(policy.agent, policy.networks, policy.normalisation, observations, noise, policy.budget)

    return jax.export.export(decide, platforms=platforms)(observations, noise)


def _draws(policy: Policy) -> Any:
    draws = jax.eval_shape(
        lambda key: policy.agent.draw_action(policy.action_size, policy.budget, key=key), jax.random.key(0)
    )
    if not isinstance(draws, jax.ShapeDtypeStruct):
        raise ValueError(
            f"{type(policy.agent).__name__} draws {draws} for a decision, but only one array of noise can be exported; "
            "take another budget."
        )
    return draws


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, prog="python -m sorl.export"))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
