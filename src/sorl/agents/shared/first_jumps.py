"""One application of the field for all that an update of SORL needs of it first, for accelerators.

These are the cloning losses, the first jump of the Q loss and that of the TD target. On an accelerator, the kernels of
one application to all their rows take hardly longer than those of each one alone.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sorl.functional import shortcut
from sorl.networks import ShortcutField, applications


class FirstJumps(NamedTuple):
    """The queries, in blocks of one row for each transition of the batch, and the field's application to them.

    The blocks are flow matching, self-consistency, the Q loss's first jump and, if it has no gradient, the TD target's.
    """

    queries: shortcut.Query
    applied: applications.Application
    batch_size: int

    def of_policy(self) -> shortcut.Query:
        """The queries of the policy's loss: all but the TD target's."""
        return jax.tree.map(lambda rows: rows[: 3 * self.batch_size], self.queries)

    def known_to_target(self, field: ShortcutField) -> shortcut.Field:
        """The field for the jumps of the TD target: with a known first velocity, unless that needs a gradient."""
        velocity = self.applied.outputs[-1][3 * self.batch_size :]
        return with_first_known(field, velocity) if len(velocity) else field


def apply(
    field: ShortcutField,
    cloning: tuple[shortcut.Query, shortcut.Query],
    policy: shortcut.Query,
    target: shortcut.Query | None,
) -> FirstJumps:
    """Applies the field to the queries of the cloning losses, the Q loss and the TD target (None: not to these)."""
    blocks = [*cloning, policy] if target is None else [*cloning, policy, target]
    queries = jax.tree.map(lambda *rows: jnp.concatenate(rows), *blocks)
    applied = applications.applied(field, queries.observation, queries.action, queries.time, queries.log2_steps)
    return FirstJumps(queries, applied, len(policy.time))


def first_query(
    observation: Float[Array, "batch observation"],
    noise: Float[Array, "batch action"],
    step_counts: tuple[int, ...],
    index: Int[Array, ""],
) -> shortcut.Query:
    """The query of the first of `step_counts[index]` jumps from `noise`; its velocity, which nothing uses, is 0."""
    log2_steps = jnp.asarray([math.log2(steps) for steps in step_counts], noise.dtype)[index]
    time = jnp.zeros(len(noise), noise.dtype)
    return shortcut.Query(observation, noise, time, jnp.full_like(time, log2_steps), jnp.zeros_like(noise))


def with_first_known(field: shortcut.Field, velocity: Float[Array, "batch action"]) -> shortcut.Field:
    """`field`, whose first call is known to give `velocity`."""
    known = [velocity]
    return lambda *inputs: known.pop() if known else field(*inputs)
