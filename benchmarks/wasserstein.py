"""Does a shortcut policy stay near the data's law, at every step size, and how far does the Q loss move it?"""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("wasserstein")

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from mixtures import LAWS, Mixture
from pictures import pyplot_without_screen
from runtime import machine
from transport import distance, errors, spread_noise

from sorl import ShortcutField, Sorl, Transition
from sorl.agents.shared.schedules import cosine_decay
from sorl.agents.shared.shortcut_losses import cloning_losses, policy_gradient
from sorl.functional import optimisation, shortcut
from sorl.system import command_line
from sorl.system.files import write_json
from sorl.system.pictures import write_picture


SUBSTEPS = 8
"""Steps of the exact flow for each step of the finest grid."""
BETTER, WIDTH = 0, 0.3
"""The component that the Q loss favours, and the deviation of Q around its mean."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains shortcut models on Gaussian mixtures, and measures their Wasserstein distance W2 to the law.

    Flow matching and self-consistency alone are compared with the bound W2 <= (e^L - 1) / L e^(L h / 2) (D + e_FM +
    e_SC log2(M h)). Every term is measured with the closed-form drift v: D, the largest root mean square over times of
    the flow's average velocity over 1 / M minus v; e_FM, that of the field at the finest step minus v; e_SC, that of
    the field over a step minus its average over two halves, the largest of all steps up to h; L, the largest Lipschitz
    constant of the field found at points of the path. Then the Q loss is added, with a known Q.
    """

    laws: tuple[str, ...] = tuple(LAWS)
    """Names of the laws."""
    law_of_q: str = "2-D, a ring of five modes"
    """The law to which the Q loss is added."""
    q_coefficients: tuple[float, ...] = (1.0, 10.0, 100.0)
    """Coefficients of the Q loss, beside 0."""
    updates: int = 8_000
    """Updates of each training."""
    batch_size: int = 512
    """Samples of one update."""
    hidden_sizes: tuple[int, ...] = (64, 64, 64)
    """Widths of the field's hidden layers, in units."""
    discretization_steps: int = 32
    """M, the steps of the finest grid."""
    learning_rate: float = 2e-3
    """Adam's learning rate, which decays to 0 by half a cosine."""
    samples: int = 2_000
    """Actions whose distance to as many samples of the law is computed."""
    seed: int = 0
    """Random seed of trainings and samples."""
    out: Path = Path("wasserstein")
    """Path of the table and the picture, to which .json and .png are added."""

    def __post_init__(self):
        unknown = [name for name in (*self.laws, self.law_of_q) if name not in LAWS]
        if unknown:
            raise ValueError(f"There is no law {unknown[0]!r}; give some of {', '.join(LAWS)}.")

    @property
    def agent(self) -> Sorl:
        """The agent of the losses' coefficients; its critic is not used."""
        return Sorl(
            hidden_sizes=self.hidden_sizes,
            discretization_steps=self.discretization_steps,
            backprop_steps=min(8, self.discretization_steps),
            learning_rate=self.learning_rate,
        )


def main(config: Config) -> dict[str, Any]:
    """Trains and measures everything, prints and writes tables and picture; **returns** what the file holds."""
    # Flow matching and self-consistency alone, on every law.
    rows, fields = [], {}
    print(f"{'law':<30}{'h':>7}{'W2':>9}{'D':>9}{'e_FM':>9}{'e_SC':>9}{'L':>7}{'bound':>11}", flush=True)
    for name in dict.fromkeys((*config.laws, config.law_of_q)):
        fields[name] = train(config, LAWS[name], 0.0)
        for row in measure(config, LAWS[name], fields[name]) if name in config.laws else ():
            rows.append({"law": name} | row)
            shown = (row[key] for key in ("w2", "discretisation", "fm_error", "sc_error"))
            numbers = "".join(f"{value:>9.4f}" for value in shown)
            print(f"{name:<30}{row['h']:>7.4g}{numbers}{row['lipschitz']:>7.2f}{row['bound']:>11.4g}", flush=True)
    slopes = [{"law": name} | slope([row for row in rows if row["law"] == name]) for name in config.laws]
    for found in slopes:
        print(f"{found['law']:<30} W2 = {found['slope']:.3f} times the measured errors")
    # The Q loss, with growing coefficients.
    q_rows = []
    print(f"{'q_coefficient':>14}{'h':>7}{'W2':>9}{'mean Q':>9}{'share of the better mode':>26}", flush=True)
    for coefficient in (0.0, *config.q_coefficients):
        law = LAWS[config.law_of_q]
        field = train(config, law, coefficient) if coefficient else fields[config.law_of_q]
        for row in followed(config, law, field):
            q_rows.append({"q_coefficient": coefficient} | row)
            numbers = f"{row['w2']:>9.4f}{row['mean_q']:>9.4f}{row['better_share']:>26.3f}"
            print(f"{coefficient:>14g}{row['h']:>7.4g}{numbers}", flush=True)
    found = {
        "machine": machine(),
        "settings": dataclasses.asdict(config) | {"out": str(config.out)},
        "rows": rows,
        "slopes": slopes,
        "q_rows": q_rows,
        "violations": [row for row in rows if row["w2"] > row["bound"]],
        "rises": rises(rows),
    }
    write_json(config.out.with_suffix(".json"), found)
    _draw(rows, q_rows, config.out.with_suffix(".png"))
    print(f"Bound violated in {len(found['violations'])} of {len(rows)} rows; W2 rose with more steps above the")
    print(f"flow-matching error in {len(found['rises'])}. Wrote {config.out.with_suffix('.json')}")
    return found


def train(config: Config, law: Mixture, q_coefficient: float) -> ShortcutField:
    """Trains a field on fresh samples of the law, with the Q loss if its coefficient is not 0.

    **Returns:** the field's moving average, which is the teacher of self-consistency too.
    """
    agent = dataclasses.replace(config.agent, q_coefficient=q_coefficient)
    made = jax.jit(functools.partial(agent.init, 1, law.means.shape[1]))(key=jax.random.key(config.seed))
    average = _train(agent, law, made.field, config.updates, config.batch_size, q_coefficient > 0, config.seed)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(average)):
        raise FloatingPointError("A training had values that are not finite; lower --learning-rate.")
    return average


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _train(
    agent: Sorl, law: Mixture, field: ShortcutField, updates: int, batch_size: int, with_q: bool, seed: int
) -> ShortcutField:
    def value(observation, action, steps):
        return quality(law, action)[..., None]

    def one_update(step, carry):
        field, average, optimiser = carry
        sample_key, draw_key, shared_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), step), 3)
        batch = _batch(law.sample(batch_size, key=sample_key))
        draws = agent.draw(batch_size, batch.action.shape[1], key=draw_key)

        def cloning(field):
            return 10 * sum(cloning_losses(field, average, batch, draws, agent.discretization_steps))

        if with_q:
            index = agent.draw_shared(step, key=shared_key).policy_steps
            critic: Any = value
            gradient, _ = policy_gradient(agent, field, average, critic, batch, draws, index)
        else:
            gradient = jax.grad(cloning)(field)
        rate = cosine_decay(agent.learning_rate, step, updates)
        field, optimiser, _ = optimisation.step(
            gradient, optimiser, field, learning_rate=rate, max_grad_norm=agent.max_grad_norm
        )
        return field, optimisation.moving_average(field, average, agent.target_rate), optimiser

    start = field, jax.tree.map(jnp.copy, field), optimisation.init(field)
    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(updates), one_update, start)[1]


def quality(law: Mixture, action: Float[Array, "*rows size"]) -> Float[Array, "*rows"]:
    """The known Q: 1 at the mean of the better mode, and falling like a Gaussian around it."""
    return jnp.exp(-jnp.sum((action - law.means[BETTER]) ** 2, axis=-1) / (2 * WIDTH**2))


def _batch(action: Float[Array, "rows size"]) -> Transition:
    nothing = jnp.zeros((len(action), 1), action.dtype)
    zero = jnp.zeros(len(action), action.dtype)
    return Transition(nothing, action, zero, zero, nothing, action)


def exact_flow(config: Config, law: Mixture) -> Float[Array, "times samples size"]:
    """Samples of the law, as the ends of its exact flow from the noise that policies start from too.

    With the same noise on both sides, most of the sampling error of W2 cancels.
    """
    noise = spread_noise(config.samples, law.means.shape[1], config.seed)
    return jax.jit(Mixture.flow, static_argnums=(2, 3))(law, noise, config.discretization_steps, SUBSTEPS)


def measure(config: Config, law: Mixture, field: ShortcutField) -> list[dict[str, float]]:
    """W2, the errors and the bound for h = 1, 1/2, 1/4, 1/8, and for the finest step of the grid."""
    finest = config.discretization_steps
    path = exact_flow(config, law)
    found = jax.jit(errors, static_argnums=3)(law, field, path, finest)
    discretisation, fm_error = (float(found[name]) for name in ("discretisation", "fm"))
    lipschitz = float(found["lipschitz"])
    rows = []
    for steps in dict.fromkeys((1, 2, 4, 8, finest)):
        h, level = 1 / steps, round(math.log2(steps))
        sc_error = max((float(found["sc"][j]) for j in range(level, round(math.log2(finest)))), default=0.0)
        total = discretisation + fm_error + sc_error * math.log2(finest * h)
        rows.append(
            {
                "h": h,
                "w2": distance(np.asarray(_actions(field, path[0], steps)), np.asarray(path[-1])),
                "discretisation": discretisation,
                "fm_error": fm_error,
                "sc_error": sc_error,
                "lipschitz": lipschitz,
                "errors": total,
                "bound": math.expm1(lipschitz) / lipschitz * math.exp(lipschitz * h / 2) * total,
            }
        )
    return rows


@functools.partial(jax.jit, static_argnums=2)
def _actions(field: ShortcutField, noise: Float[Array, "rows size"], steps: int) -> Float[Array, "rows size"]:
    return shortcut.sample(field, jnp.zeros((len(noise), 1)), noise, steps, clip=False)


def slope(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The least-squares factor of W2 over the measured errors, and the bound's smallest factor of them."""
    w2, errors = (np.array([row[name] for row in rows]) for name in ("w2", "errors"))
    return {"slope": float(w2 @ errors / (errors @ errors)), "bound": min(row["bound"] / row["errors"] for row in rows)}


def rises(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows whose W2 is above that of fewer steps, unless it is below the floor: the flow-matching error."""
    return [
        row
        for before, row in itertools.pairwise(rows)
        if row["law"] == before["law"] and row["w2"] > max(before["w2"], row["fm_error"])
    ]


def followed(config: Config, law: Mixture, field: ShortcutField) -> list[dict[str, float]]:
    """W2 to the law and the values of the actions, in one and in four jumps."""
    path = exact_flow(config, law)
    noise, reference = path[0], np.asarray(path[-1])
    rows = []
    for steps in (1, 4):
        actions = _actions(field, noise, steps)
        near = jnp.argmin(jnp.sum((actions[:, None] - law.means[None]) ** 2, axis=-1), axis=1) == BETTER
        rows.append(
            {
                "h": 1 / steps,
                "w2": distance(np.asarray(actions), reference),
                "mean_q": float(jnp.mean(quality(law, actions))),
                "better_share": float(jnp.mean(near)),
            }
        )
    return rows


def _draw(rows: Sequence[dict[str, Any]], q_rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws W2 against h for each law (left), against the errors (middle), and against the mean Q (right)."""
    if (pyplot := pyplot_without_screen()) is None:
        return
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for index, name in enumerate(dict.fromkeys(row["law"] for row in rows)):
        own = [row for row in rows if row["law"] == name]
        style: dict[str, Any] = {"marker": "o", "markersize": 3, "color": f"C{index}"}
        left.plot([row["h"] for row in own], [row["w2"] for row in own], label=name, **style)
        left.axhline(own[0]["fm_error"], color=f"C{index}", linewidth=0.5, linestyle=":")
        middle.plot([row["errors"] for row in own], [row["w2"] for row in own], linestyle="none", **style)
        middle.plot([row["errors"] for row in own], [row["bound"] for row in own], color=f"C{index}", linewidth=0.7)
    left.set(xscale="log", yscale="log", xlabel="step size h", ylabel="W2 to the data's law")
    left.legend(fontsize=6, frameon=False)
    middle.set(xscale="log", yscale="log", xlabel="measured errors", ylabel="W2 (points) and bound (lines)")
    for h in dict.fromkeys(row["h"] for row in q_rows):
        own = [row for row in q_rows if row["h"] == h]
        right.plot([row["w2"] for row in own], [row["mean_q"] for row in own], marker="o", label=f"h = {h:g}")
        for row in own:
            right.annotate(f"{row['q_coefficient']:g}", (row["w2"], row["mean_q"]), fontsize=6)
    right.set(xlabel="W2 to the data's law", ylabel="mean Q of the actions")
    right.legend(fontsize=7, frameon=False)
    write_picture(figure, path)
    print(f"Drew {path}")


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python benchmarks/wasserstein.py"))
