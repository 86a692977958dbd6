"""BC: behaviour cloning by a Gaussian policy."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from sorl.agents.actors import GaussianActor, actor_of
from sorl.agents.interface import AbstractAgent
from sorl.agents.shared.published import Published, rows
from sorl.data.transitions import Transition
from sorl.functional import optimisation
from sorl.networks import GaussianNetwork


class BcState(eqx.Module):
    """Everything that training changes for one seed."""

    actor: GaussianNetwork
    optimiser: PyTree


class Bc(AbstractAgent):
    """Behaviour cloning: the policy is N(mu(x), I), fitted to the logged actions by maximum likelihood.

    An action takes one forward pass. The policy is unimodal: if the data have several modes, mu(x) lies between them.
    Source: Pomerleau, "ALVINN" (1989); settings of the FQL paper (Park et al., 2025).

    - policy: -log N(a; mu(x), I), which is |a - mu(x)|^2 / 2 plus a constant

    Logged: `policy_loss`, `policy_grad_norm`.

    The action is mu(x); this is assumed to hold for the FQL paper's Gaussian policies too. The standard deviation of 1
    affects only the loss. A budget's noise scale adds noise of that many standard deviations.
    """

    # Source: the FQL paper's tables.
    published = Published(rows((11, 0, 2, 1, 1, 5, 2, 5)))

    hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of the policy's hidden layers, in units."""
    learned_std: bool = eqx.field(static=True, default=False)
    """Whether the standard deviation of each action dimension is learned; otherwise it is 1."""
    learning_rate: float = 3e-4
    """Adam's learning rate."""

    @property
    def actor(self) -> GaussianActor:
        """The mean, plus noise if the budget has a noise scale above 0."""
        return actor_of(GaussianActor, self)

    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> BcState:
        """A new policy and a new optimiser state."""
        actor = GaussianNetwork(observation_size, action_size, self.hidden_sizes, learned_std=self.learned_std, key=key)
        return BcState(actor, optimisation.init(actor))

    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> tuple[()]:
        """Empty: the loss needs no random draws."""
        return ()

    def draw_shared(self, step: Int[Array, ""], *, key: Key[Array, ""]) -> tuple[()]:
        """Empty: the seeds share no random draws."""
        return ()

    def update(
        self, state: BcState, batch: Transition, draws: tuple[()], shared: tuple[()]
    ) -> tuple[BcState, dict[str, Float[Array, ""]]]:
        """One policy step."""
        gradient, metrics = jax.grad(_loss, has_aux=True)(state.actor, batch)
        actor, optimiser, metrics["policy_grad_norm"] = optimisation.step(
            gradient, state.optimiser, state.actor, learning_rate=self.learning_rate
        )
        return BcState(actor, optimiser), metrics

    def losses(
        self, state: BcState, batch: Transition, draws: tuple[()], shared: tuple[()]
    ) -> dict[str, Float[Array, ""]]:
        """The loss at the current parameters, without an update."""
        return _loss(state.actor, batch)[1]

    def policy(self, state: BcState) -> GaussianNetwork:
        """The policy's network."""
        return state.actor


def _loss(actor: GaussianNetwork, batch: Transition) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    loss = -jnp.mean(jax.vmap(actor.log_probability)(batch.observation, batch.action))
    return loss, {"policy_loss": loss}
