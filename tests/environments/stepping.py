"""A step of several environments at once, for tests of pools."""

from sorl.environments.interface import Outcome


CUBE = "cube-single-play-singletask-task1-v0"


def step(environments, slots, actions):
    """One step in each of the slots, in the order asked for."""
    environments.step_async(slots, actions)
    found = environments.step_wait(len(slots))
    assert found is not None
    done, outcome = found
    order = [done.tolist().index(slot) for slot in slots]
    return Outcome(*(column[order] for column in outcome))
