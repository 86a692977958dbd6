"""`python -m sorl.export RUN`: a policy at one budget as a StableHLO program that runs without sorl."""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("sorl.export")

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import tyro

from sorl.config.json_form import to_json
from sorl.config.own_agents import OwnAgents
from sorl.policy import Policy, act, exported, load_policy
from sorl.policy.file import without_directories
from sorl.system import entry
from sorl.system.files import make_directory, whole_file, write_sealed


PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
FAR = 1e5
"""If an observation's mean is this many standard deviations from 0, single precision loses significant digits."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Exports a policy at one budget.

    The program takes observations [batch, observation] in the environment's units, with any batch size, and standard
    normal noise, for most agents [batch, candidates, action] (the file records the shape). It returns actions
    [batch, action] in the environment's units, or [batch, chunk, action] if the policy gives action chunks.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory, or a policy file."""
    out: Path = Path("policy.stablehlo")
    """File to write; its directory is created if missing."""
    steps: int | None = None
    """Number of inference steps M^inf; default: the policy's own budget."""
    candidates: int | None = None
    """Number of candidate actions N, of which the critic picks one; default: the policy's own budget."""
    noise_scale: float | None = None
    """Factor on the noise: 1 as trained, 0 for the deterministic path; default: the policy's own budget."""
    platforms: tuple[str, ...] = ("cpu", "cuda")
    """Platforms that the program can run on: any of cpu, cuda, rocm and tpu."""
    seed: int | None = None
    """Training seed of the policy in a run directory; default: the lowest."""
    with_loader: bool = False
    """Also write the loader `exported.py` next to it, which needs only jax, flatbuffers and numpy."""
    own_agents: Annotated[OwnAgents, tyro.conf.arg(name="")] = dataclasses.field(default_factory=OwnAgents)
    """Agents of your own."""


def main(config: Config) -> None:
    """Exports the policy and prints what was written."""
    config.own_agents.load()
    make_directory(config.out.parent)  # fail before the work
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
    """Writes the policy at its own budget as one sealed file, which `sorl.policy.exported.load_exported` reads.

    **Arguments:** `platforms`, some of `PLATFORMS`. Raises a `ValueError` for an unknown platform, and for a budget
    whose decisions need more random draws than noise. Warns if an observation's offset is so large that the program,
    which takes single precision, loses significant digits.
    """
    program = export(policy, platforms)
    _warn_of_lost_digits(policy)
    noise = program.in_avals[1]
    provenance = without_directories(policy.provenance)
    header = {
        "agent": provenance.pop("agent", {}),
        "observation_size": policy.observation_size,
        "action_size": policy.action_size,
        "noise_shape": list(noise.shape[1:]),
        "budget": to_json(policy.budget),
        "platforms": list(program.platforms),
        "jax": jax.__version__,
        "calling_convention_version": program.calling_convention_version,
        "provenance": provenance,
    }
    make_directory(Path(path).parent)
    write_sealed(Path(path), exported.FORMAT, exported.FORMAT_VERSION, header, bytes(program.serialize()))


def export(policy: Policy, platforms: Sequence[str] = ("cpu", "cuda")) -> jax.export.Exported:
    """The policy at its own budget as a program (observations, noise) -> actions with a symbolic batch size.

    Raises as `save_exported` does.
    """
    unknown = [platform for platform in platforms if platform not in PLATFORMS]
    if unknown or not platforms:
        raise ValueError(f"The platforms are {', '.join(platforms) or 'none'}; give some of {', '.join(PLATFORMS)}.")
    # Find the shape of one decision's noise; a program takes no other random draws.
    (batch,) = jax.export.symbolic_shape("batch")
    draws = jax.eval_shape(
        lambda key: policy.actor.draw_action(policy.chunk * policy.action_size, policy.budget, key=key),
        jax.random.key(0),
    )
    leaves, structure = jax.tree.flatten(draws)
    if len(leaves) > 1:
        raise ValueError(f"A decision at {policy.budget.name} draws more than its noise; export another budget.")
    shape = leaves[0].shape if leaves else (0,)

    # Export the decision with the networks as constants.
    @jax.jit
    def decide(observations, noise):
        draws = jax.tree.unflatten(structure, [noise] if leaves else [])
        return act(policy.actor, policy.networks, policy.normalisation, observations, draws, policy.budget)

    inputs = (policy.observation_size,), shape
    return jax.export.export(decide, platforms=platforms)(
        *(jax.ShapeDtypeStruct((batch, *size), jnp.float32) for size in inputs)
    )


def _warn_of_lost_digits(policy: Policy) -> None:
    """Warns of lost digits: the program takes single precision, while `Policy` standardises in double precision."""
    standardisation = policy.normalisation.standardisation()
    low, high = standardisation.limits()
    far = np.flatnonzero((np.abs(standardisation.mean) > FAR * standardisation.scale) & (low < high))
    if len(far):
        warnings.warn(
            f"The exported program sees {', '.join(f'observations[{index}]' for index in far)} to few digits, since "
            f"single precision rounds what lies beyond {FAR:g} deviations from 0; subtract the offset before logging.",
            stacklevel=3,
        )


def command() -> None:
    """Runs the command line."""
    main(entry.parse(Config, prog="python -m sorl.export"))
