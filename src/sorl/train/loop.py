"""Training as one compiled program: many updates of all members of a population, on data on the device or gathered.

A member has a seed and may have hyper-parameters of its own. Random numbers depend only on (seed, step), and not on the
length of a chunk, on logging, evaluation or resuming, or on which other members are trained.
"""

from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Key, PyTree

from sorl.agents import AbstractAgent
from sorl.data.host import HostDataset
from sorl.data.transitions import Dataset, Transition, Windows
from sorl.system.accelerators import traced_for
from sorl.train.draws import INIT, Batches, draw, draw_shared, joined, separate
from sorl.train.hyperparameters import combined, single_precision
from sorl.train.own_code import errors_of, refuse_other_results, refuse_unusable_losses, refuse_unusable_policy


SeedMapping = Literal["map", "vmap"]
"""`map`: one member after the other, bit-equal to training each alone; `vmap`: all at once, equal up to rounding."""

COMPILER_OPTIONS = {
    "xla_cpu_prefer_vector_width": 512,
    "xla_gpu_enable_triton_gemm": False,
    "xla_gpu_dot_merger_threshold_mb": 0,
}
"""Options of XLA; each backend ignores those of others.

- CPU: the vector width of loops in bits; the default is half of what such CPUs have.
- GPU: cuBLAS computes all products, with biases and activations in the same kernels, which other ways of computing or
  merging products would prevent.
"""

TILE = 16
"""Number of updates whose batches and random draws are made together; made one by one, they would take longer than the
arithmetic of a small network."""


class TrainState(eqx.Module):
    """The complete state for resuming. Every array except `step` has a leading axis over members."""

    agent: PyTree
    step: Int[Array, ""]
    """Number of updates made so far."""
    keys: Key[Array, " members"]
    """The root key of each member's seed; it never changes, because the step is folded in."""
    first_bad_step: Int[Array, " members"]
    """The first update with a non-finite metric, or -1; such a member is not trained any further."""
    metric_sums: dict[str, Float[Array, " members"]]
    """Sums of the metrics since the last multiple of the log interval."""


def default_seed_mapping() -> SeedMapping:
    """`map` on CPU, where it is bit-exact; `vmap` on accelerators, which a single small network cannot fill."""
    return "map" if jax.default_backend() == "cpu" else "vmap"


def init(
    agent: AbstractAgent,
    dataset: Dataset | HostDataset,
    seeds: tuple[int, ...],
    own: PyTree | None = None,
    *,
    batch_size: int,
) -> TrainState:
    """Creates the state at step 0; each member's slice equals the state that it gets when trained alone.

    **Arguments:** `seeds`, that of each member; `own`, their `own_settings`.
    """
    agent = single_precision(agent)
    observation_size, action_size = dataset.sizes[0], agent.window.chunk * dataset.sizes[1]
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    # Without vmap, because the same program for any number of seeds gives the same bits.
    with errors_of(agent, "init"):
        one_by_one = [
            _init_member(combined(agent, of_member(own, jnp.int32(index))), key, observation_size, action_size)
            for index, key in enumerate(keys)
        ]
    states = _stacked(one_by_one)
    step = jnp.int32(0)
    data = Batches.like(dataset, agent.window, batch_size) if isinstance(dataset, HostDataset) else dataset
    with errors_of(agent, "draw"):
        drawn = jax.eval_shape(partial(draw, batch_size=batch_size), agent, keys[0], step, data)
    with errors_of(agent, "draw_shared"):
        shared = jax.eval_shape(draw_shared, agent, step)
    with errors_of(agent, "update"):
        updated = jax.eval_shape(_update, agent, one_by_one[0], *drawn, shared)
    refuse_other_results(agent, one_by_one[0], updated)
    metrics = updated[1]
    refuse_unusable_losses(agent, one_by_one[0], *drawn, shared)
    refuse_unusable_policy(agent, one_by_one[0], observation_size, action_size)
    return TrainState(
        agent=states,
        step=step,
        keys=keys,
        first_bad_step=jnp.full(len(seeds), -1, jnp.int32),
        metric_sums={name: jnp.zeros((len(seeds),), metric.dtype) for name, metric in metrics.items()},
    )


class Carry(NamedTuple):
    """The state that one update of one member passes to the next."""

    agent: PyTree
    first_bad_step: Int[Array, ""]
    metric_sums: Any
    """By name, and within the loop over updates as the array that `_packed` makes of them."""


def train_steps(
    agent: AbstractAgent,
    state: TrainState,
    data: Dataset | Batches,
    updates: Int[Array, ""],
    own: PyTree | None = None,
    *,
    batch_size: int,
    log_interval: int,
    seed_mapping: SeedMapping,
    mesh: Mesh | None = None,
    platform: str | None = None,
) -> TrainState:
    """Makes `updates` updates of every member; it is pure and not jitted (`run_chunk` is the jitted form).

    **Arguments:** `agent`, the hyper-parameters that all members share; `state`, with a leading axis over members;
    `data`, from which batches are drawn, or the batches of these updates with a leading axis over members, which give
    the same bits; `updates`, an array, so that one program serves chunks of any length; `own`, the members'
    `own_settings`; `batch_size`, the number of transitions per batch; `log_interval`, the number of updates over which
    metrics are summed (from one multiple to the next, so that means do not depend on where chunks end); `seed_mapping`,
    see `SeedMapping`; `mesh`, devices along the axes `seed` (members, which it divides) and `batch` (rows of a batch),
    on which the arrays are placed as `sorl.train.devices` does; without it, everything is on one device; `platform`,
    for which the program is compiled (default: that of `mesh`, or JAX's default). Raises a `ValueError` for another
    `seed_mapping`, or a `log_interval` below 1.
    """
    if seed_mapping not in get_args(SeedMapping) or log_interval < 1:
        raise ValueError(
            f"seed_mapping is {seed_mapping!r} and log_interval {log_interval}; give "
            f"{' or '.join(get_args(SeedMapping))}, and at least 1 update."
        )
    default = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    start, end = state.step, state.step + updates
    # One program on each device for its own members: `shard_map` needs no collectives, where a loop over a sharded axis
    # would gather it. The axis of the batch stays with XLA, which sums the gradients over it.
    train = partial(
        _train_members,
        batch_size=batch_size,
        log_interval=log_interval,
        seed_mapping=seed_mapping,
        platform=platform or default,
        batch_axis=None if mesh is None or mesh.shape["batch"] == 1 else "batch",
    )
    if mesh is not None:
        shared, members = PartitionSpec(), PartitionSpec("seed")
        train = jax.shard_map(
            train,
            mesh=mesh,
            in_specs=(shared, shared, shared, shared, members),
            out_specs=members,
            axis_names={"seed"},
            check_vma=False,
        )
    carry = Carry(state.agent, state.first_bad_step, state.metric_sums)
    source, gathered = (data.first, data.windows) if isinstance(data, Batches) else (data, None)
    carry = train(single_precision(agent), source, start, end, (carry, state.keys, own, gathered))
    return TrainState(carry.agent, end, state.keys, carry.first_bad_step, carry.metric_sums)


def _train_members(
    common: AbstractAgent,
    source: Dataset | Int[Array | np.ndarray, ""],
    start: Int[Array, ""],
    end: Int[Array, ""],
    members: tuple[Carry, Key[Array, " members"], PyTree | None, Windows | None],
    *,
    batch_size: int,
    log_interval: int,
    seed_mapping: SeedMapping,
    platform: str,
    batch_axis: str | None,
) -> Carry:
    """Makes the updates of the members on one device, from step `start` to `end`.

    **Arguments:** `source`, the data, or if `members` have gathered windows, the first update of these.
    """
    alone = batch_axis is None and (seed_mapping == "map" or len(members[1]) == 1)

    def one_member(argument: tuple[Carry, Key[Array, ""], PyTree | None, Any]) -> Carry:
        carry, key, mine, windows = argument
        agent = combined(common, mine)
        data = source if isinstance(source, Dataset) else Batches(windows, source)

        def run(carry):
            settings = batch_size, log_interval, platform, batch_axis, alone
            tile = partial(_one_tile, agent, key, data, start, end, *settings)
            # The sums of all metrics are one array, which one kernel updates.
            packed = carry._replace(metric_sums=_packed(carry.metric_sums))
            packed = jax.lax.fori_loop(start // TILE, -(-end // TILE), tile, packed)
            return packed._replace(metric_sums=dict(zip(sorted(carry.metric_sums), packed.metric_sums, strict=True)))

        # A member that became bad in an earlier chunk keeps the state of its last good checkpoint.
        good = carry.first_bad_step < 0
        if seed_mapping == "map":
            return jax.lax.cond(good, run, lambda c: c, carry)
        # No `cond` here: under vmap it would batch the step too, and so turn every switch into a select.
        return jax.tree.map(lambda new, old: jnp.where(good, new, old), run(carry), carry)

    # One member after the other, or all at once; a single one without an axis, which would keep XLA's GPU backend from
    # fusing biases and activations into the products.
    if seed_mapping == "map":
        return jax.lax.map(one_member, members)
    if len(members[1]) == 1:
        found = one_member(jax.tree.map(lambda leaf: leaf[0], members))
        return jax.tree.map(lambda leaf: leaf[None], found)
    return jax.vmap(one_member)(members)


def _one_tile(
    agent: AbstractAgent,
    key: Key[Array, ""],
    data: Dataset | Batches,
    start: Int[Array, ""],
    end: Int[Array, ""],
    batch_size: int,
    log_interval: int,
    platform: str,
    batch_axis: str | None,
    alone: bool,
    number: Int[Array, ""],
    carry: Carry,
) -> Carry:
    """Makes those updates of one member's tile `number` that are at least `start` and below `end`."""
    # Draw the batches and the noise of all updates of the tile at once. The grid of tiles is absolute, so that an
    # update's draws come from the same program wherever chunks end.
    first = number * TILE
    steps = first + jnp.arange(TILE, dtype=jnp.int32)
    drawn = jax.vmap(lambda step: draw(agent, key, step, data, batch_size=batch_size))(steps)
    if batch_axis is not None:
        batches, draws = drawn
        drawn = jax.lax.with_sharding_constraint(batches, PartitionSpec(None, batch_axis)), draws
    shared = jax.vmap(lambda step: draw_shared(agent, step))(steps)
    # A kernel for each array of an update costs an accelerator more than joining them once in a tile.
    drawn, of_update = (joined if platform != "cpu" and batch_axis is None else separate)(drawn)

    def one_update(step: Int[Array, ""], carry: Carry) -> Carry:
        # Update all networks, and record the first update with a metric that is not finite.
        batch, draws = of_update(drawn, step - first)
        common = jax.tree.map(lambda leaf: leaf[step - first], shared)
        agent_state, metrics = _update(agent, carry.agent, batch, draws, common, platform=platform, alone=alone)
        values = _packed(metrics)
        bad = (carry.first_bad_step < 0) & ~jnp.all(jnp.isfinite(values))
        # Add to the sums of the metrics, which restart at each multiple of the interval.
        fresh = step % log_interval == 0
        sums = jnp.where(fresh, 0, carry.metric_sums) + values
        return Carry(agent_state, jnp.where(bad, step, carry.first_bad_step), sums)

    return jax.lax.fori_loop(jnp.maximum(first, start), jnp.minimum(first + TILE, end), one_update, carry)


run_chunk = jax.jit(
    train_steps,
    static_argnames=("batch_size", "log_interval", "seed_mapping", "mesh", "platform"),
    donate_argnames="state",
    compiler_options=COMPILER_OPTIONS,
)
"""`train_steps` as one compiled program; `state` is donated.

Raises a `ValueError` inside another `jax.jit`, because XLA accepts no compiler options there; use `train_steps`.
"""


@jax.jit
def of_member(states: PyTree, index: Int[Array, ""]) -> PyTree:
    """The slice of one member, given by its index, of all arrays in one compiled program."""
    return jax.tree.map(lambda leaf: leaf[index], states)


@jax.jit
def _stacked(states: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


@partial(jax.jit, static_argnames=("observation_size", "action_size"))
def _init_member(agent: AbstractAgent, key: Key[Array, ""], observation_size: int, action_size: int) -> PyTree:
    return agent.init(observation_size, action_size, key=jax.random.fold_in(key, INIT))


# Jitted separately so that it is traced only once, because its tracing is the longest part of the start.
@partial(jax.jit, static_argnames=("platform", "alone"))
def _update(
    agent: AbstractAgent,
    state: Any,
    batch: Transition,
    draws: Any,
    shared: Any,
    *,
    platform: str = "cpu",
    alone: bool = False,
) -> Any:  # what a user's agent returns is checked by `init`
    with traced_for(platform, alone=alone):
        return agent.update(state, batch, draws, shared)


def _packed(metrics: dict[str, Float[Array, ""]]) -> Float[Array, " metrics"]:
    """The values of the metrics as one array, in the order of their names."""
    return jnp.stack([metrics[name] for name in sorted(metrics)])
