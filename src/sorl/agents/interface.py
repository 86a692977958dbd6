"""The interface of every algorithm: a frozen module of hyper-parameters with `init`, `draw`, `update` and an actor."""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Float, Int, Key, PyTree

from sorl.agents.actors.interface import AbstractActor
from sorl.agents.shared.published import Published
from sorl.agents.shared.settings import refuse_absurd_values
from sorl.data.transitions import Transition, Window


class AbstractAgent(eqx.Module):
    """A learning algorithm: its fields are the hyper-parameters, and `state` holds everything that training changes.

    Its `actor` defines how the trained networks act. All randomness is passed as data: `draw` and `draw_shared` make
    the random draws of one update; apart from them only `init` is random.

    Three optional fields define the transitions of its batches: `discount`, gamma per environment step, from which
    `Transition.discount` is computed; `n_step`, the number of rewards summed before the bootstrap; `chunk`, the number
    of actions per decision; each is 1 by default.
    """

    metric_descriptions: ClassVar[Mapping[str, str]] = {}
    """Descriptions of its metrics by name, if `sorl.agents.shared.metrics.SHARED` lacks them or describes them
    differently."""
    published: ClassVar[Published] = Published()
    """Its hyper-parameters and scores by environment, from published papers; without a score, the package's own."""
    quickstart: ClassVar[Mapping[str, Any]] = {}
    """Hyper-parameters that differ from the defaults in a run of 40,000 updates with networks of 2 x 256 units."""
    own_logs: ClassVar[Mapping[str, Any]] = {}
    """Hyper-parameters that differ from the defaults for a user's own logs."""

    def __check_init__(self):
        refuse_absurd_values(self)
        _ = self.actor  # raises if the actor's fields are invalid

    @property
    @abc.abstractmethod
    def actor(self) -> AbstractActor:
        """The actor, which defines how the policy acts."""

    @property
    def window(self) -> Window:
        """The window that a transition spans, from the fields `n_step` and `chunk`; default: one step."""
        return Window(getattr(self, "n_step", 1), getattr(self, "chunk", 1))

    @property
    def values_may_be_lower(self) -> bool:
        """Whether penalties in its targets may lower its values below what the rewards allow."""
        return False

    @property
    def updates_before_policy(self) -> int:
        """Number of first updates that do not train the policy; if a run has no more, its policy is untrained."""
        return 0

    @abc.abstractmethod
    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> PyTree:
        """Creates the initial training state of one seed.

        **Arguments:** `action_size`, the size of one decision, here and elsewhere: the action's length times
        `window.chunk`.
        """

    @abc.abstractmethod
    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> PyTree:
        """The random draws of one update that belong to one seed."""

    @abc.abstractmethod
    def draw_shared(self, step: Int[Array, ""], *, key: Key[Array, ""]) -> PyTree:
        """The inputs of one update that all seeds share: random draws that choose a program branch, and schedules.

        **Arguments:** `step`, the number of earlier updates. It is an argument and not a part of the state, because
        `vmap` would treat it there as different for each seed, and would then run every branch.
        """

    @abc.abstractmethod
    def update(
        self, state: Any, batch: Transition, draws: Any, shared: Any
    ) -> tuple[PyTree, dict[str, Float[Array, ""]]]:
        """Makes one update of all networks. **Returns:** the next state, and scalar metrics by name."""

    @abc.abstractmethod
    def losses(self, state: Any, batch: Transition, draws: Any, shared: Any) -> dict[str, Float[Array, ""]]:
        """The scalar losses on a batch without an update, for validation data."""

    @abc.abstractmethod
    def policy(self, state: Any) -> PyTree:
        """The networks that `actor` needs to act."""
