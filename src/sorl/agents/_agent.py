"""What every algorithm offers: a frozen module of hyper-parameters with `init`, `draw`, `update`, `act`."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
from jaxtyping import Array, Float, Int, Key, PyTree

from sorl.transitions import Transition


class Budget(eqx.Module):
    """The compute that one decision may spend; static, so that each budget is one compiled program."""

    inference_steps: int = eqx.field(static=True, default=4)
    """Sequential budget M^inf: jumps or integration steps from noise to action, >= 1; 1 for a policy without steps."""
    candidates: int = eqx.field(static=True, default=1)
    """Parallel budget N: actions drawn, of which the one with the highest aggregated Q is taken, >= 1."""
    noise_scale: float = eqx.field(static=True, default=1.0)
    """Temperature: scale of the policy's noise; 1 is the policy as trained, 0 its deterministic path."""
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


class Budgets(NamedTuple):
    """The compute budgets that an agent acts on."""

    usual: Budget
    """What it acts with unless told otherwise; its noise scale and conditioning serve every budget of an evaluation."""
    inference_steps: tuple[int, ...]
    """Sequential budgets M^inf that an evaluation covers unless it names its own; (1,) for a policy without steps."""
    candidates: tuple[int, ...]
    """Parallel budgets N of the table after training unless it names its own; (1,) for an agent without a critic."""
    trained_steps: tuple[int, ...]
    """The numbers of steps that training teaches, rising; a budget that names another extrapolates."""
    other_inference_steps: bool
    """Whether it can act in other numbers of steps than `inference_steps`."""
    other_candidates: bool
    """Whether it can choose among other numbers of candidates than `candidates`."""

    def grid(
        self, inference_steps: Sequence[int] | None, candidates: Sequence[int] | None, *, final: bool
    ) -> list[Budget]:
        """Every pair of the two, or of what stands in for None: the agent's own.

        The agent's own candidates are the usual ones while it trains, and all of them for the `final` table. Raises a
        `ValueError`, one sentence, for a budget that the agent cannot act on.
        """
        steps = self.inference_steps if inference_steps is None else inference_steps
        own = self.candidates if final else (self.usual.candidates,)
        budgets = [
            dataclasses.replace(self.usual, inference_steps=m, candidates=n)
            for n in (own if candidates is None else candidates)
            for m in steps
        ]
        for budget in budgets:
            self.refuse(budget)
        return budgets

    def refuse(self, budget: Budget) -> None:
        """Raises a `ValueError`, one sentence, for a budget that the agent cannot act on."""
        for name, title in (("inference_steps", "inference steps"), ("candidates", "candidates")):
            asked, possible = getattr(budget, name), getattr(self, name)
            if asked not in possible and not getattr(self, f"other_{name}"):
                allowed = " or ".join(map(str, possible))
                raise ValueError(f"This agent cannot act with {asked} {title}; give {allowed}.")


ONE_PASS = Budgets(
    usual=Budget(inference_steps=1, noise_scale=0.0),
    inference_steps=(1,),
    candidates=(1,),
    trained_steps=(1,),
    other_inference_steps=False,
    other_candidates=False,
)
"""Of a policy that acts by one forward pass, on its mean unless a noise scale says otherwise."""


class AbstractAgent(eqx.Module):
    """An algorithm: its hyper-parameters are its fields, and `state` holds everything that training changes.

    All randomness is data: `draw` and `draw_shared` make the random draws of one update, `draw_action` those of one
    decision, and nothing else is random but `init`.
    """

    @property
    @abc.abstractmethod
    def budgets(self) -> Budgets:
        """The compute budgets that it acts on, and those that it is judged at."""

    @abc.abstractmethod
    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> PyTree:
        """A fresh training state for one seed."""

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
        """The part of the state that acting needs (networks only)."""

    @abc.abstractmethod
    def draw_action(self, action_size: int, budget: Budget, *, key: Key[Array, ""]) -> PyTree:
        """The random draws of one decision for one observation."""

    @abc.abstractmethod
    def act(
        self, policy: Any, observation: Float[Array, " observation"], draws: Any, budget: Budget
    ) -> Float[Array, " action"]:
        """One decision for one observation, in [-1, 1]; the caller vmaps."""
