"""What an assessment is about: a policy, data in its units, and a discount."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sorl.config.changes import changes
from sorl.config.options import DataConfig, TrainConfig, read_config
from sorl.data.loaded import LoadedData
from sorl.data.recorded.origin import held_out, refuse_other_columns
from sorl.data.sources import Source
from sorl.data.transitions import Dataset
from sorl.policy import Policy, load_policy
from sorl.runs.run import config_path


USUAL_DISCOUNT = 0.99
"""The discount of a policy whose record has none, such as that of a cloning agent."""


class Subject(NamedTuple):
    """A policy, the data that judge it, and the discount of its values."""

    policy: Policy
    data: LoadedData
    held_out: Dataset
    discount: float
    discount_from: str
    """Where the discount comes from, in words."""
    agents_discount: float | None = None
    """The discount of the agent's own values; None if its record has none."""
    caution: str = ""
    """What of these data may have been trained on: one sentence; empty if nothing, or if the policy has no record."""


def load_subject(path: Path, *, seed: int | None, env: str | None, data: DataConfig, discount: float | None) -> Subject:
    """Loads a policy (of a run directory or a file) and its data.

    **Arguments:** `seed`, the training seed in a run directory; `env` and `data`, the options of the data (a run's own
    if neither is given); `discount` (None: that of the policy's record, or else 0.99).

    Raises a `ValueError`, one sentence, if the data do not fit the policy, have other rewards than its run, or hold no
    held-out episodes, and as `load_policy` and the source of the data do.
    """
    policy = load_policy(path, seed)
    loaded = _source(path, policy, env, data).load(normalisation=policy.normalisation)
    if not isinstance(loaded.train, Dataset):
        raise ValueError(
            f"The data stay on the {loaded.residence.residence} ({loaded.residence.reason}), and an assessment needs "
            "them on the device; give a part of them with --data, or leave --data.residence out."
        )
    _refuse_misfit(path, policy, loaded)
    for record in _trained_on(policy)[:1]:
        refuse_other_columns(loaded.provenance["path"], loaded.provenance, record, "the policy's training")
    if loaded.validation is None:
        raise ValueError(
            "The data hold no held-out episodes, on which a policy is judged; give a --data.validation-fraction above "
            "0 and at least two episodes, or a second file beside the logs that ends in -val.npz."
        )
    return Subject(policy, loaded, loaded.validation, *_discount(policy, discount), _caution(policy, loaded))


def _source(path: Path, policy: Policy, env: str | None, data: DataConfig) -> Source:
    """The source of the data: that of the options, or, without options, the run's own."""
    run: TrainConfig | None = read_config(config_path(path)) if config_path(path).exists() else None
    if run is not None and env is None and data == DataConfig():
        return dataclasses.replace(run.data, residence="auto").source(run.env)
    if env is None and data == DataConfig():
        raise ValueError(
            f"{path} is a policy without the options of its run, so its data are not known; give --data LOGS, or --env "
            "with the options of its data."
        )
    if run is not None and env is None and run.data.path is not None and data.path is None:
        given = {name: getattr(data, name) for name in changes(DataConfig(), data)}
        data = dataclasses.replace(run.data, **given)  # the run's own logs, read with these options
    if run is not None:
        _refuse_other_rewards((run.data.sparse_rewards, run.data.reward_scale), data)
    elif phases := _trained_on(policy):
        recorded = bool(phases[-1].get("sparse_rewards")), float(phases[-1].get("reward_scale", 1.0))
        _refuse_other_rewards(recorded, data)
    known = policy.provenance.get("env")
    return data.source(env or (known if isinstance(known, str) else None))


def _trained_on(policy: Policy) -> list[dict[str, Any]]:
    """The records of the data that a policy was trained on, one for each phase; empty if it has none."""
    versions: Any = policy.provenance.get("versions")
    if not isinstance(versions, dict):
        return []
    records = [versions.get("data"), *(phase.get("data") for phase in versions.get("phases", []))]
    return [record for record in records if isinstance(record, dict)]


def _refuse_other_rewards(trained: tuple[bool, float], given: DataConfig) -> None:
    """Raises a `ValueError` if rewards are changed otherwise than in training, so that no values could be compared.

    **Arguments:** `trained`, whether rewards were made sparse in training, and their scale.
    """
    if trained == (given.sparse_rewards, given.reward_scale):
        return
    sparse = "--data.sparse-rewards" if trained[0] else "--data.no-sparse-rewards"
    raise ValueError(
        "The policy was trained on rewards of another scale or form than these data have here; give "
        f"{sparse} --data.reward-scale {trained[1]:g}, as in its training."
    )


def _caution(policy: Policy, data: LoadedData) -> str:
    """Whether the held-out episodes were held out in training too: one sentence if not, empty without a record."""
    now = data.provenance
    phases = [record for record in _trained_on(policy) if "sha256" in record]
    if not phases or "sha256" not in now:
        return ""
    # The record of a table by an earlier version has no columns.
    same = [
        record
        for record in phases
        if record["sha256"] == now["sha256"] and record.get("columns") in (None, now.get("columns"))
    ]
    if not same:
        return "These data are not those that the policy was trained on."
    if all(_split(record) == _split(now) for record in same):
        return ""
    return (
        "The policy's training held out other episodes of these data, so it has seen some of those that judge it here, "
        "and looks better on them than on new ones."
    )


def _split(record: dict[str, Any]) -> Any:
    """What decides which episodes are held out: the digest of a second file, or how they were drawn or named."""
    validation = record.get("validation") or {}
    return [*(validation.get(name) for name in ("sha256", "by", "fraction", "seed")), held_out(record.get("about"))]


def _refuse_misfit(path: Path, policy: Policy, data: LoadedData) -> None:
    found = data.train.sizes
    expected = policy.observation_size, policy.action_size
    if found != expected:
        raise ValueError(
            f"The data have observations of size {found[0]} and actions of size {found[1]}, but the policy {path} has "
            f"{expected[0]} and {expected[1]}; give data of its task."
        )
    own, theirs = (jax.tree.leaves(one) for one in (policy.normalisation, data.normalisation))
    if len(own) != len(theirs) or not all(map(np.array_equal, own, theirs)):
        raise ValueError(
            f"The policy {path} has the units of its own logs, and these data have others; give its logs with --data."
        )


def _discount(policy: Policy, asked: float | None) -> tuple[float, str, float | None]:
    """The discount of the assessment, where it comes from, and that of the agent if it is recorded."""
    agent: Any = policy.provenance.get("agent")
    recorded = agent.get("discount") if isinstance(agent, dict) else None
    own = float(recorded) if isinstance(recorded, int | float) and 0 <= recorded <= 1 else None
    if asked is not None:
        return asked, "as given", own
    if own is not None:
        return own, "the agent's", own
    return USUAL_DISCOUNT, "the usual one, as the policy's record has none", None
