"""Whether data hold whole decisions: losses leave out chunks of actions that the end of an episode cuts."""

from sorl.config.options import TrainConfig
from sorl.data import LoadedData
from sorl.data.host import HostDataset
from sorl.data.transitions import Dataset


def holds_decisions(config: TrainConfig, dataset: Dataset | HostDataset) -> bool:
    """Whether any trajectory is as long as a decision of the agent; without one, losses are 0 whatever it learns."""
    chunk = config.agent.window.chunk
    return chunk == 1 or dataset.longest >= chunk


def refuse_no_decision(config: TrainConfig, data: LoadedData) -> None:
    """Raises a `ValueError`, one sentence, if no training episode is as long as a decision of the agent."""
    if not holds_decisions(config, data.train):
        raise ValueError(
            f"The longest training episode has {data.train.longest} transitions, and a decision of "
            f"{type(config.agent).__name__} has {config.agent.window.chunk} actions; give longer episodes, or a "
            "smaller --agent.chunk."
        )


def no_validation(config: TrainConfig, data: LoadedData) -> list[str]:
    """One sentence if episodes are held out but none is as long as a decision of the agent; else nothing."""
    if data.validation is None or holds_decisions(config, data.validation):
        return []
    return [
        f"warning: the longest held-out episode has {data.validation.longest} transitions, and a decision has "
        f"{config.agent.window.chunk} actions, so there are no validation losses."
    ]
