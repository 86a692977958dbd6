"""Published settings and scores for each environment: those of SORL, and those of its ten baselines.

Sources: SORL's released code for its settings; the tables of the FQL paper (Park et al., "Flow Q-Learning", 2025) for
the settings and scores of all baselines, including those that other papers proposed.
"""

import dataclasses
from typing import Any


LOCOMOTION = (
    "antmaze-large-navigate",
    "antmaze-giant-navigate",
    "humanoidmaze-medium-navigate",
    "humanoidmaze-large-navigate",
    "antsoccer-arena-navigate",
)
MANIPULATION = ("cube-single-play", "cube-double-play", "scene-play")
ENVIRONMENTS = (*LOCOMOTION, *MANIPULATION)
"""Environments with their kind of data; the names of their five tasks begin with it."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """An agent's published settings and score in an environment."""

    fields: dict[str, Any]
    """Hyper-parameters that differ from the agent's defaults."""
    success: int | None
    """Published success in percent, the mean over five tasks and eight seeds; None if it is not known."""


def _rows(success: tuple[int | None, ...], **columns: Any) -> dict[str, Settings]:
    """Settings for each environment; a column is a list with a value for each, or one value for all."""
    columns = {name: v if isinstance(v, list) else [v] * len(ENVIRONMENTS) for name, v in columns.items()}
    return {
        env: Settings({name: column[row] for name, column in columns.items()}, success[row])
        for row, env in enumerate(ENVIRONMENTS)
    }


FOUR_LAYERS = [(512, 512, 512, 512)] * len(LOCOMOTION) + [(256, 256, 256, 256)] * len(MANIPULATION)
TWO_LAYERS = [(512, 512)] * len(LOCOMOTION) + [(256, 256)] * len(MANIPULATION)
EXPECTILE = [0.7] * len(LOCOMOTION) + [0.9] * len(MANIPULATION)
DISCOUNT = [0.99, 0.995, 0.995, 0.995, 0.995, 0.99, 0.99, 0.99]
AGGREGATION = ["min", "min", "mean", "mean", "mean", "mean", "mean", "mean"]
Q_COEFFICIENT = [500.0, 500.0, 100.0, 500.0, 500.0, 10.0, 50.0, 100.0]  # released code of SORL
SORL = _rows((89, 9, 64, 5, 69, 97, 25, 57), q_coefficient=Q_COEFFICIENT, discount=DISCOUNT, q_aggregation=AGGREGATION)

PUBLISHED: dict[str, dict[str, Settings]] = {
    "Sorl": SORL,
    "SorlReleased": SORL,
    "Bc": _rows((11, 0, 2, 1, 1, 5, 2, 5)),
    "Iql": _rows(
        (53, 4, 33, 2, 8, 83, 7, 28),
        temperature=[10.0, 10.0, 10.0, 10.0, 1.0, 1.0, 0.3, 10.0],  # antsoccer's is that of table 7, offline to online
        hidden_sizes=FOUR_LAYERS,
        critic_hidden_sizes=FOUR_LAYERS,
        discount=DISCOUNT,
    ),
    "Rebrac": _rows(
        (81, 26, 22, 2, 0, 91, 12, 41),
        # antsoccer's are those of table 7, offline to online.
        actor_cloning_coefficient=[0.003, 0.003, 0.01, 0.01, 0.01, 1.0, 0.1, 0.1],
        critic_cloning_coefficient=[0.01, 0.01, 0.01, 0.01, 0.01, 0.0, 0.0, 0.01],
        discount=DISCOUNT,
        momentum_between_turns=True,  # the FQL paper's code
    ),
    "Idql": _rows(
        (21, 0, 1, 1, 12, 95, 15, 46),
        candidates=32,  # antsoccer's is not known: that of every other environment
        expectile=EXPECTILE,
        critic_hidden_sizes=TWO_LAYERS,
        discount=DISCOUNT,
    ),
    "Srpo": _rows(
        (11, 0, 1, 0, 1, 80, 2, 20),
        # antsoccer's is not known: that of every other locomotion environment.
        q_coefficient=[0.3, 0.3, 0.3, 0.3, 0.3, 0.03, 0.1, 0.1],
        # SRPO's code decides by "maze" in the environment's name; it is not known whether the FQL paper's runs did.
        normalise_guidance=["maze" in env for env in ENVIRONMENTS],
        expectile=EXPECTILE,
        critic_hidden_sizes=TWO_LAYERS,
        discount=DISCOUNT,
    ),
    "Cac": _rows(
        (33, 0, 53, 0, 2, 85, 6, 40),
        # antsoccer's is not known: that of three of the four other locomotion environments.
        q_coefficient=[1.0, 1.0, 0.03, 1.0, 1.0, 0.003, 0.3, 0.3],
        discount=DISCOUNT,
    ),
    "Fql": _rows(
        (79, 9, 58, 4, 60, 96, 29, 56),
        distillation_coefficient=[10.0, 10.0, 30.0, 30.0, 10.0, 300.0, 300.0, 300.0],
        discount=DISCOUNT,
        q_aggregation=AGGREGATION,
    ),
    "Ifql": _rows(
        (28, 3, 60, 11, 33, 79, 14, 30),
        candidates=[32, 32, 32, 32, 64, 32, 32, 32],  # antsoccer's is that of table 7
        discount=DISCOUNT,
    ),
    "Fbrac": _rows(
        (60, 4, 38, 2, 16, 79, 15, 45),
        # antsoccer's is not known: that of antmaze-giant, the nearest in size.
        flow_matching_coefficient=[3.0, 10.0, 30.0, 30.0, 10.0, 100.0, 100.0, 100.0],
        discount=DISCOUNT,
        q_aggregation=AGGREGATION,
    ),
    "Fawac": _rows(
        (6, 0, 19, 0, 12, 81, 5, 30),
        # antsoccer's is not known: that of every other locomotion environment.
        temperature=[3.0, 3.0, 3.0, 3.0, 3.0, 1.0, 0.3, 0.3],
        discount=DISCOUNT,
        q_aggregation=AGGREGATION,
    ),
}
"""All published settings, by the agent's class name and then by environment."""


UPDATES = {"Idql": 3_000_000, "Srpo": 4_000_000}
"""Updates of a run, by the agent's class name; 1,000,000 for all others. Srpo's number is not published: it is one
million for its policy, after three for its model and values, which are those of Idql."""

EVALUATION_INTERVALS = {"Idql": 250_000}
"""Updates between evaluations, by the agent's class name; 100,000 for all others."""


def environment_of(env: str) -> str | None:
    """The published environment that the task `env` belongs to; None if there is none."""
    name, separator, _ = env.partition("-singletask")
    return name if separator and name in ENVIRONMENTS else None


def published(agent: str, env: str | None) -> Settings | None:
    """The published settings of an agent, by its class name, for a task; None if no table has them."""
    name = None if env is None else environment_of(env)
    return None if name is None else PUBLISHED.get(agent, {}).get(name)
