"""Weights of logged actions in behaviour cloning, by their value relative to the policy's own action."""

import jax
from jaxtyping import Array, Float


def guidance_weight(
    logged_q: Float[Array, "*batch"],
    policy_q: Float[Array, "*batch"],
    eta: float | Float[Array, ""],
    scale: float | Float[Array, ""] = 1.0,
) -> Float[Array, "*batch"]:
    """w = sigmoid((Q(x, a) - Q(x, a_pi)) / (eta * scale)), without a gradient, for a logged a and the policy's a_pi.

    At equal values the weight is 1 / 2; a large `eta` weights all rows alike, and a small one keeps only logged actions
    that are better than the policy's own (Tiofack et al., "Guided Flow Policy: Learning from High-Value Actions in
    Offline Reinforcement Learning", 2025).

    **Arguments:** `eta`, the temperature, above 0; `scale`, a magnitude of Q, so that `eta` does not depend on the
    units of the rewards.
    """
    return jax.lax.stop_gradient(jax.nn.sigmoid((logged_q - policy_q) / (eta * scale)))
