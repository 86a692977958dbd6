"""The losses of a run's members on held-out data, as one compiled program."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from sorl.agents import AbstractAgent
from sorl.data.transitions import Dataset
from sorl.train.draws import HELD_OUT_BATCHES, Batches, sample, validation_keys
from sorl.train.hyperparameters import combined, single_precision
from sorl.train.loop import COMPILER_OPTIONS, TrainState


def validation_losses(
    agent: AbstractAgent,
    state: TrainState,
    data: Dataset | Batches,
    own: PyTree | None = None,
    *,
    batch_size: int,
    batches: int = HELD_OUT_BATCHES,
) -> dict[str, Float[Array, " members"]]:
    """Mean losses over `batches` batches of held-out data, with the same batches and draws in every call and member.

    It is pure and not jitted (`run_validation` is the jitted form). With constant draws, changes of the losses come
    only from the networks. The arguments are those of `train_steps`; gathered batches are the same for all members, and
    have no axis over them.
    """
    common = single_precision(agent)

    def one_batch(agent, agent_state, index):
        index_key, draw_key, shared_key = validation_keys(index)
        batch = sample(agent, data, index, batch_size, key=index_key)
        draws = agent.draw(batch_size, batch.action.shape[-1], key=draw_key)
        return agent.losses(agent_state, batch, draws, agent.draw_shared(state.step, key=shared_key))

    def one_member(argument):
        agent_state, mine = argument
        agent = combined(common, mine)
        losses = jax.lax.map(lambda index: one_batch(agent, agent_state, index), jnp.arange(batches, dtype=jnp.int32))
        return jax.tree.map(lambda loss: jnp.mean(loss, axis=0), losses)

    return jax.lax.map(one_member, (state.agent, own))


run_validation = jax.jit(
    validation_losses, static_argnames=("batch_size", "batches"), compiler_options=COMPILER_OPTIONS
)
"""`validation_losses` as one compiled program, with the compiler's options of training.

Raises a `ValueError` inside another `jax.jit`, as `sorl.train.loop.run_chunk` does.
"""
