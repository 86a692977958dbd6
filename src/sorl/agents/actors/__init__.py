"""Actors define how trained networks act; there is one kind per file, and several algorithms may share a kind."""

from sorl.agents.actors.choice import (
    CandidateDraws as CandidateDraws,
    GeneratorAndCritic as GeneratorAndCritic,
    choose as choose,
    critic_values as critic_values,
    draw_candidates as draw_candidates,
)
from sorl.agents.actors.consistency import ConsistencyActor as ConsistencyActor
from sorl.agents.actors.denoising import DenoisingActor as DenoisingActor
from sorl.agents.actors.flow import FlowActor as FlowActor
from sorl.agents.actors.interface import (
    AbstractActor as AbstractActor,
    actor_of as actor_of,
    structure as structure,
)
from sorl.agents.actors.one_pass import DeterministicActor as DeterministicActor, GaussianActor as GaussianActor
from sorl.agents.actors.one_step import OneStepActor as OneStepActor
from sorl.agents.actors.renoised import RenoisedActor as RenoisedActor
from sorl.agents.actors.shortcut import ShortcutActor as ShortcutActor


ACTORS: dict[str, type[AbstractActor]] = {
    kind.__name__: kind
    for kind in (
        ConsistencyActor,
        DenoisingActor,
        DeterministicActor,
        FlowActor,
        GaussianActor,
        OneStepActor,
        RenoisedActor,
        ShortcutActor,
    )
}
"""The actors by the name that policy files store; registering an agent adds its actor."""
