"""What every algorithm offers: a frozen module of hyper-parameters with `init`, `draw`, `update` and an actor."""

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
    """A learner: its hyper-parameters are its fields, and `state` holds everything that training changes.

    How the trained networks act is a matter of its `actor`. All randomness is data: `draw` and `draw_shared` make the
    random draws of one update, and nothing else is random but `init`.

    Three fields decide what transitions it is given, where it has them: `discount`, gamma per step, which
    `Transition.discount` then holds (without it, 1 per step); `n_step`, rewards that are summed before the bootstrap;
    `chunk`, actions of one decision.
    """

    metric_descriptions: ClassVar[Mapping[str, str]] = {}
    """What the metrics mean that it logs and that `sorl.agents.shared.metrics.SHARED` lacks or
    describes otherwise, by name."""
    published: ClassVar[Published] = Published()
    """What papers set it to and report of it."""
    quickstart: ClassVar[Mapping[str, Any]] = {}
    """Hyper-parameters for a run of 40,000 updates with networks of 2 x 256 units, where they differ."""
    own_logs: ClassVar[Mapping[str, Any]] = {}
    """Hyper-parameters for a user's own logs, where they differ from the defaults."""

    def __check_init__(self):
        refuse_absurd_values(self)
        _ = self.actor  # which refuses what cannot act

    @property
    @abc.abstractmethod
    def actor(self) -> AbstractActor:
        """How its policy acts."""

    @property
    def window(self) -> Window:
        """What a transition spans: one step, or what the fields `n_step` and `chunk` say where the agent has them."""
        return Window(getattr(self, "n_step", 1), getattr(self, "chunk", 1))

    @abc.abstractmethod
    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> PyTree:
        """A fresh training state for one seed.

        **Arguments:** `action_size`, of all that a decision gives: here and elsewhere the action's length times
        `window.chunk`.
        """

    @abc.abstractmethod
    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> PyTree:
        """The random draws of one update that belong to one seed."""

    @abc.abstractmethod
    def draw_shared(self, step: Int[Array, ""], *, key: Key[Array, ""]) -> PyTree:
        """What all seeds share of one update: random draws that choose which program branch runs, and schedules.

        **Arguments:** `step`, the number of updates made before this one. It is an argument, not a part of the state:
        there it would differ from seed to seed as far as a program can tell, and every branch would run.
        """

    @abc.abstractmethod
    def update(
        self, state: Any, batch: Transition, draws: Any, shared: Any
    ) -> tuple[PyTree, dict[str, Float[Array, ""]]]:
        """One update of everything: the next state, and scalar metrics by name."""

    @abc.abstractmethod
    def losses(self, state: Any, batch: Transition, draws: Any, shared: Any) -> dict[str, Float[Array, ""]]:
        """The scalar losses on a batch without an update, for validation data."""

    @abc.abstractmethod
    def policy(self, state: Any) -> PyTree:
        """The networks that its `actor` acts with."""
