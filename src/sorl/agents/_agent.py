"""What every algorithm offers: a frozen module of hyper-parameters with `init`, `draw`, `update`, `act`."""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, Key, PyTree

from sorl.transitions import Transition


class Budget(eqx.Module):
    """The compute that one decision may spend; static, so that each budget is one compiled program."""

    inference_steps: int = eqx.field(static=True, default=4)
    """Sequential budget M^inf: jumps from noise to action, >= 1."""
    candidates: int = eqx.field(static=True, default=1)
    """Parallel budget N: actions drawn, of which the one with the highest aggregated Q is taken, >= 1."""
    noise_scale: float = eqx.field(static=True, default=1.0)
    """Temperature: standard deviation of the initial noise; 1 is the policy as trained, 0 its deterministic path."""
    policy_conditioning: int | None = eqx.field(static=True, default=None)
    """Number of steps shown to the policy; None: the largest trained count not above `inference_steps`."""
    critic_conditioning: int | None = eqx.field(static=True, default=None)
    """Number of steps shown to the critic; None: the largest trained count not above `inference_steps`."""

    def __check_init__(self):
        if self.inference_steps < 1 or self.candidates < 1:
            raise ValueError(
                f"A budget of {self.inference_steps} inference steps and {self.candidates} candidates cannot act; "
                "give at least 1 of each."
            )
        for name in ("policy_conditioning", "critic_conditioning"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; give a step count >= 1, or None for the largest trained one.")
        if not self.noise_scale >= 0:
            raise ValueError(f"The noise scale is {self.noise_scale}; give a number >= 0.")

    @property
    def name(self) -> str:
        """Short name by its two sizes, such as `M4N8`: four jumps, best of eight."""
        return f"M{self.inference_steps}N{self.candidates}"


class AbstractAgent(eqx.Module):
    """An algorithm: its hyper-parameters are its fields, and `state` holds everything that training changes.

    All randomness is data: `draw` and `draw_shared` make the random draws of one update, `draw_action` those of one
    decision, and nothing else is random but `init`.
    """

    @property
    @abc.abstractmethod
    def trained_steps(self) -> tuple[int, ...]:
        """The numbers of inference steps that training teaches, rising; a budget that names another extrapolates."""

    @abc.abstractmethod
    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> PyTree:
        """A fresh training state for one seed."""

    @abc.abstractmethod
    def init_policy(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> PyTree:
        """The networks of a fresh state in the form of `policy`, without an optimiser: what a stored policy fills."""

    @abc.abstractmethod
    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> PyTree:
        """The random draws of one update that belong to one seed."""

    @abc.abstractmethod
    def draw_shared(self, *, key: Key[Array, ""]) -> PyTree:
        """The random draws of one update that all seeds share: those that choose which program branch runs."""

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
        """The part of the state that acting needs (networks only)."""

    @abc.abstractmethod
    def draw_action(self, action_size: int, budget: Budget, *, key: Key[Array, ""]) -> PyTree:
        """The random draws of one decision for one observation."""

    @abc.abstractmethod
    def act(
        self, policy: Any, observation: Float[Array, " observation"], draws: Any, budget: Budget
    ) -> Float[Array, " action"]:
        """One decision for one observation, in [-1, 1]; the caller vmaps."""
