"""Times a policy's decisions in JAX, as an exported StableHLO program and in onnxruntime, side by side."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from sorl.agents import Budget
from sorl.policy import exported, planning, stablehlo
from sorl.policy.latency import Decision, timed_rounds
from sorl.policy.policy import Policy


ROUNDS = 20
"""Number of rounds over all decisions, so that a disturbance of the machine affects all alike."""
ROUND_SECONDS = 0.02
"""Target duration in seconds of the calls of one decision in one round."""
CALLS = (2, 50)
"""Minimum and maximum number of calls of one decision in one round."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """The latency of one decision on one observation, in milliseconds."""

    median: float
    p95: float
    """The 95th percentile of all calls."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The latencies by budget and runtime, and a sentence for each runtime that is left out."""

    timings: Mapping[Budget, Mapping[str, Timing]]
    left_out: Sequence[str]


def compare(policy: Policy, budgets: Sequence[Budget] | None = None) -> Comparison:
    """Times the decisions of a policy on one observation, from numpy to numpy, on this machine.

    JAX and StableHLO run on the policy's device, onnxruntime on the CPU with its default number of threads.

    **Arguments:** `budgets`, default: those of the policy's scores, or every trained number of steps and the usual.
    """
    budgets = budgets or planning.possible_budgets(policy.actor, policy.budget, policy.scores)
    decisions: dict[tuple[Budget, str], Decision] = {}
    left_out: dict[str, str] = {}
    for budget in budgets:
        for name, make in RUNTIMES.items():
            if name in left_out:
                continue
            try:
                decisions[budget, name] = make(policy.with_budget(budget))
            except ImportError as error:
                left_out[name] = f"{name} is left out: {error.name} is not installed; pip install 'sorl[onnx]'."
            except ValueError as error:  # a budget that this format does not have
                left_out[f"{name} at {budget.name}"] = f"{name} at {budget.name} is left out: {error}"
    timings: dict[Budget, dict[str, Timing]] = {budget: {} for budget in budgets}
    for (budget, name), timing in measure(decisions).items():
        timings[budget][name] = timing
    return Comparison(timings, list(left_out.values()))


def measure(decisions: Mapping[Any, Decision], *, clock: Callable[[], float] = time.perf_counter) -> dict[Any, Timing]:
    """Times decisions in turns, round by round, as `latency.timed_rounds` does.

    **Arguments:** `decisions` by name, each of which must block until its result is there; `clock`, in seconds.
    """
    rounds = timed_rounds(decisions, ROUNDS, ROUND_SECONDS, CALLS, clock)
    found = {name: 1000 * np.concatenate(own) for name, own in rounds.items()}
    return {name: Timing(float(np.median(own)), float(np.quantile(own, 0.95))) for name, own in found.items()}


def table(comparison: Comparison) -> str:
    """The latencies as text: median and 95th percentile in milliseconds, a line for each budget."""
    names = list(RUNTIMES)
    lines = [" M^inf    N" + "".join(f"{name:>22}" for name in names), " " * 11 + "       median      p95" * len(names)]
    for budget, own in comparison.timings.items():
        cells = (f"{own[name].median:13.3f}{own[name].p95:9.3f}" if name in own else f"{'-':>22}" for name in names)
        lines.append(f"{budget.inference_steps:6d} {budget.candidates:4d}" + "".join(cells))
    return "\n".join(lines)


def _in_jax(policy: Policy) -> Decision:
    return functools.partial(policy, _observation(policy), key=jax.random.key(0))


def _as_stablehlo(policy: Policy) -> Decision:
    program = stablehlo.export(policy, [_platform(policy)])
    loaded = exported.ExportedPolicy(stablehlo.header(policy, program), program)
    noise = loaded.noise(np.random.default_rng(0))
    return functools.partial(loaded, _observation(policy), noise)


def _in_onnxruntime(policy: Policy) -> Decision:
    from sorl.policy.onnx.file import Session, to_onnx

    model = to_onnx(policy)
    noise = np.random.default_rng(0).standard_normal((1, *model.noise_shape), dtype=np.float32)
    return functools.partial(Session(model), _observation(policy)[None], noise)


RUNTIMES: dict[str, Callable[[Policy], Decision]] = {
    "jax": _in_jax,
    "StableHLO": _as_stablehlo,
    "onnxruntime": _in_onnxruntime,
}
"""Makes a decision of each runtime."""


def _observation(policy: Policy) -> np.ndarray:
    return policy.normalisation.standardisation().mean.astype(np.float32)


def _platform(policy: Policy) -> str:
    platform = policy.device.platform
    return "cuda" if platform == "gpu" else platform
