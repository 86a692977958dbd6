"""`python -m sorl.policy RUN`: describes a policy and chooses its budget for a time limit."""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("sorl.policy.__main__")

import dataclasses
from pathlib import Path
from typing import Annotated

import jax
import tyro

from sorl.config.own_agents import OwnAgents
from sorl.policy import Plan, Policy, compare as comparing, load_policy
from sorl.policy.file import FORMAT
from sorl.policy.planning import refuse_limit
from sorl.statistics.measures import measure_of
from sorl.statistics.rows import SETTING
from sorl.system import command_line, compilation
from sorl.system.files import make_directory, refuse_other_file


@dataclasses.dataclass(frozen=True)
class Config:
    """Describes a policy; with a time limit, measures the latency of each budget on this machine and chooses one."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory, policy file, or name of a pretrained policy."""
    latency_ms: float | None = None
    """Time limit of a decision on one observation, in milliseconds; default: no budget is chosen."""
    compare: bool = False
    """Time each budget in JAX, as an exported StableHLO program and in onnxruntime, in turns, on one observation."""
    seed: int | None = None
    """Training seed of the policy in a run directory, or member of a population; default: the lowest."""
    device: str | None = None
    """Platform to act on, such as cpu or gpu; default: JAX's."""
    out: Path | None = None
    """File to write the policy to, with the chosen budget as its default; default: no file."""
    measure_again: bool = False
    """Measure again instead of using earlier measurements from the user's cache."""
    compilation_cache: bool = True
    """Cache compiled programs in a private directory, which makes later starts faster."""
    own_agents: Annotated[OwnAgents, tyro.conf.arg(name="")] = dataclasses.field(default_factory=OwnAgents)
    """Agents of your own."""

    def __post_init__(self):
        if self.latency_ms is not None:
            refuse_limit(self.latency_ms)
        elif self.measure_again:
            raise ValueError("--measure-again is about the times for a limit; give --latency-ms too.")
        elif self.device is not None and not self.compare:
            raise ValueError(
                f"--device {self.device} is where decisions are timed; give --latency-ms or --compare too."
            )


def main(config: Config) -> Policy:
    """Prints the policy and the plan; **returns** the policy at the chosen budget."""
    config.own_agents.load()
    if config.out is not None:
        make_directory(config.out.parent)  # fail before the work
        refuse_other_file(config.out, f"{FORMAT} ".encode())
    policy = load_policy(config.run, config.seed)
    print(_description(policy))
    if config.compilation_cache and (config.compare or config.latency_ms is not None):
        compilation.enable_cache()
    if config.latency_ms is not None:
        print("Each budget is measured once on this machine, and remembered.", flush=True)
        device = None if config.device is None else _device(config.device)
        policy = policy.for_latency(config.latency_ms, device, measure_again=config.measure_again)
        assert policy.plan is not None
        print(_table(policy.plan), policy.plan.reason, sep="\n")
        if policy.chunk > 1:
            print(
                f"A decision serves {policy.chunk} steps: each costs {policy.plan.milliseconds / policy.chunk:.3g} ms."
            )
    if config.compare:
        _print_comparison(policy if config.device is None else policy.on(_device(config.device)))
    if config.out is not None:
        policy.save(config.out)
        print(f"Wrote {config.out}")
    return policy


def _print_comparison(policy: Policy) -> None:
    print("Milliseconds of a decision on one observation, from numpy to numpy, measured in turns:", flush=True)
    found = comparing.compare(policy)
    print(comparing.table(found), *found.left_out, sep="\n")


def _device(platform: str) -> jax.Device:  # pyright: ignore[reportInvalidTypeForm]
    try:
        return jax.devices(platform)[0]
    except RuntimeError as error:
        raise ValueError(f"There is no device {platform!r} here ({error}); jax has {jax.devices()}.") from error


def _description(policy: Policy) -> str:
    settings = [name for name in policy.provenance if name.startswith(SETTING)]
    known = [name for name in ("env", "member", "seed", *settings, "step") if policy.provenance.get(name) is not None]
    origin = ", ".join(f"{name} {policy.provenance[name]}" for name in known)
    steps = ", ".join(map(str, policy.actor.budgets.trained_steps))
    chunk = f" for each of {policy.chunk} steps at once" if policy.chunk > 1 else ""
    usual = policy.actor.budgets.usual.noise_scale
    noise = "" if policy.budget.noise_scale == usual else f" with noise scale {policy.budget.noise_scale:g}"
    return (
        f"{policy.algorithm} ({origin or 'of unknown origin'}): {policy.observation_size} observations, "
        f"{policy.action_size} actions{chunk}, trained for {steps} steps, scores of {len(policy.scores)} budgets; acts "
        f"at {policy.budget.name}{noise} by default."
    )


def _table(plan: Plan) -> str:
    scores = [option.score for option in plan.options if option.score is not None]
    measure = measure_of(scores, "success")
    lines = [" M^inf    N   p95 ms" + (f"  {measure.name:>7}   95 % interval  against M1N1" if scores else "")]
    for budget, milliseconds, score in plan.options:
        line = f"{budget.inference_steps:6d} {budget.candidates:4d} {milliseconds:8.3f}"
        if score is not None:
            name = measure.name
            interval = measure.range(score[f"{name}_low"], score[f"{name}_high"])
            line += f"  {measure.text(score[name]):>7}  {interval}  {score['difference']:+12{measure.digits}}"
        lines.append(line)
    return "\n".join(lines)


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python -m sorl.policy"))
