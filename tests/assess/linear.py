"""Problems with known values, and policies that are linear in the observation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sorl import Normalisation, Policy
from sorl.agents import Budget, Budgets
from sorl.agents.actors import AbstractActor
from sorl.data.transitions import Dataset

from ..random_networks import array


class LinearActor(AbstractActor):
    """Acts with gain @ x + deviation * noise; with n inference steps the gain is n times as large."""

    deviation: float = 0.0
    chunk: int = eqx.field(static=True, default=1)

    @property
    def budgets(self) -> Budgets:
        return Budgets(Budget(1), (1, 2), (1,), (1,), other_inference_steps=True, other_candidates=False)

    def template(self, observation_size, action_size):
        return jax.ShapeDtypeStruct((action_size, observation_size), jnp.float32)

    def draw_action(self, action_size, budget, *, key):
        return jax.random.normal(key, (action_size,), jnp.float32)

    def act(self, networks, observation, draws, budget) -> Float[Array, " action"]:
        return budget.inference_steps * networks @ observation + self.deviation * draws


def linear_policy(gain, deviation: float = 0.0, chunk: int = 1, **fields) -> Policy:
    """The policy of a gain [action, observation], in networks' units."""
    gain = array(gain, np.float32)
    units = Normalisation.identity(gain.shape[1], gain.shape[0] // chunk)
    return Policy(LinearActor(deviation, chunk), gain, units, **fields)


def steps(observations, actions, rewards, masks, nexts, next_actions) -> Dataset:
    """A data set of single transitions, each a trajectory of its own."""

    def both(first, second):
        return array(np.stack([first, second], axis=1).reshape(-1, *np.shape(first)[1:]), np.float32)

    nothing = np.zeros(len(rewards))
    return Dataset(
        observations=both(observations, nexts),
        actions=both(actions, next_actions),
        rewards=both(rewards, nothing),
        masks=both(masks, nothing + 1),
        starts=array(2 * np.arange(len(rewards)), np.int32),
    )
