"""One application of the field to the cloning losses and the first jumps of Q loss and TD target, for accelerators.

None of these needs an earlier application of the field. The kernels of one application to all of their rows take hardly
longer than those of each one alone.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sorl.functional import shortcut
from sorl.networks import ShortcutField, applications


@dataclasses.dataclass(frozen=True)
class FirstJumps:
    """The field's application to three or four blocks of rows, each with a row for each transition of the batch."""

    policy: shortcut.Query
    """The queries of the policy's loss, [3 x batch, ...]: flow matching, self-consistency, the Q loss's first jump."""
    applied: applications.Application
    """To these queries and, if `with_target`, to those of the TD target in a fourth block."""
    with_target: bool

    def for_target(self, field: ShortcutField) -> shortcut.Field:
        """The same field, for the jumps of the TD target; if its first jump is among the rows, that is not computed
        again."""
        # Slice here, inside the branch of a number of jumps: a slice made outside of the branch would be copied.
        velocity = self.applied.outputs[-1][len(self.policy.time) :]
        return with_first_known(field, velocity) if self.with_target else field


def apply(
    field: ShortcutField,
    cloning: tuple[shortcut.Query, shortcut.Query],
    policy: shortcut.Query,
    target: shortcut.Query | None,
) -> FirstJumps:
    """Applies the field to the queries of the cloning losses, and of the first jumps of the Q loss and the TD target.

    `target` is None if the TD target's first jump is not to be computed here.
    """
    of_policy = _joined(*cloning, policy)
    queries = of_policy if target is None else _joined(of_policy, target)
    applied = applications.applied(field, queries.observation, queries.action, queries.time, queries.log2_steps)
    return FirstJumps(of_policy, applied, with_target=target is not None)


def _joined(*queries: shortcut.Query) -> shortcut.Query:
    return jax.tree.map(lambda *rows: jnp.concatenate(rows), *queries)


def first_query(
    observation: Float[Array, "batch observation"],
    noise: Float[Array, "batch action"],
    step_counts: tuple[int, ...],
    index: Int[Array, ""],
) -> shortcut.Query:
    """The query of the first of `step_counts[index]` jumps from `noise`; its target velocity is 0 and not used."""
    log2_steps = jnp.asarray([math.log2(steps) for steps in step_counts], noise.dtype)[index]
    time = jnp.zeros(len(noise), noise.dtype)
    return shortcut.Query(observation, noise, time, jnp.full_like(time, log2_steps), jnp.zeros_like(noise))


def with_first_known(field: shortcut.Field, velocity: Float[Array, "batch action"]) -> shortcut.Field:
    """A field like `field` that returns the known `velocity` at its first call, without computing it."""
    known = [velocity]
    return lambda *inputs: known.pop() if known else field(*inputs)
