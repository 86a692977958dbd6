"""The file format of a policy: a sealed file with a JSON header and the networks in Equinox's serialisation."""

import dataclasses
import functools
import io
import math
import os
import warnings
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from sorl.agents import Budget
from sorl.agents.actors import AbstractActor
from sorl.agents.registry import UnknownAgent
from sorl.config.json_form import actor_from_json, agent_from_json, budget_from_json, to_json
from sorl.data.normalisation import Normalisation
from sorl.policy.exported import read_sealed
from sorl.policy.planning import checked_scores
from sorl.policy.seed_record import find_bad_seeds, has_record
from sorl.pretrained import store
from sorl.system.files import make_directory, read_json, write_sealed


FORMAT = "sorl-policy"
FORMAT_VERSION = 3
"""Version of the format. Version 2, of sorl 0.1.0, stores the agent instead of the actor; it can be read too."""

_REQUIRED = ("actor", "observation_size", "action_size", "normalisation")
_OPTIONAL = ("budget", "scores", "provenance")
"""Fields that take their default if a header lacks them."""

MOST = 2**16
"""The largest layer size and number of steps, candidates or critic heads that a file may contain."""
MOST_OBSERVATIONS = 2**22
"""The largest size of an observation or an action."""
ARRAY_BYTES = 128
"""The minimum size of an array in the payload, which limits the number of layers by the size of the payload."""
LONGEST_REASON = 300
"""Maximum number of characters of an error about a header, which may quote parts of it."""
NAMES = ("observation_names", "action_names", "observation_keys", "columns", "left_out", "unused_keys")
"""Entries of a provenance that name columns of the data."""
KINDS = ("seed", "member")
"""What the number in the name of a policy file is: a training seed, or in a population the number of a member."""
SUFFIX = ".sorl"
"""The end of a policy file's name."""


class Content(NamedTuple):
    """The content of a policy file."""

    actor: AbstractActor
    networks: PyTree
    normalisation: Normalisation
    provenance: dict[str, Any]
    scores: list[dict[str, Any]]
    budget: Budget


def policy_path(directory: Path, seed: int, kind: str = "seed") -> Path:
    """The policy file of a training seed in a run directory, or with the kind `member`, of a member's number."""
    return directory / f"policy-{kind}-{seed}{SUFFIX}"


def find_policy(path: Path, seed: int | None) -> Path:
    """The policy file for a path: the file itself, or in a run directory that of `seed` (None: the lowest good seed).

    In the directory of a population, `seed` is the number of a member. A path that does not exist may be the name of a
    pretrained policy.

    Warns if the losses of `seed` became non-finite. Raises a `ValueError` if the directory has no policy, none of
    `seed`, none of the lowest good seed or no good seed, or if `path` is a file and a seed is given, and a
    `FileNotFoundError` if there is neither a file nor a pretrained policy of that name.
    """
    if not path.exists() and store.is_name(path):
        path = store.find(str(path))
    # A policy file holds one policy, so there is no seed to choose.
    if not path.is_dir():
        if seed is not None:
            raise ValueError(f"{path} is one policy, of which seed {seed} cannot be asked; give its run directory.")
        return path
    # In a run directory, check that there is a policy of the seed.
    seeds = _policies(path)
    if not seeds:
        raise ValueError(f"{path} is a directory without a policy; give one where sorl.train saved a checkpoint.")
    kind = "member" if policy_path(path, min(seeds), "member") in seeds.values() else "seed"
    if seed is not None and seed not in seeds:
        raise ValueError(f"{path} has no policy of {kind} {seed}; it has those of {', '.join(map(str, seeds))}.")
    # A bad seed is never chosen, but may be asked for by its number.
    bad = bad_seeds(path)
    if seed is None:
        good = [found for found in seeds if found not in bad]
        if not good:
            raise ValueError(
                f"{path} has no good {'member' if kind == 'member' else 'training seed'}: the losses of all became "
                f"non-finite; train again with a lower agent.learning_rate, or name one of the {kind}s "
                f"{', '.join(map(str, seeds))} to use its last good policy."
            )
        seed = good[0]
        # The next seed's policy must not be taken for the lowest one's, whose file was lost.
        if lost := [number for number in _trained(path, kind, seed) if number not in (*seeds, *bad)]:
            raise ValueError(
                f"{path} has no policy of {kind} {', '.join(map(str, lost))}; restore it from a copy, or continue the "
                f"run with --resume, which writes it, or name one of the {kind}s {', '.join(map(str, seeds))}."
            )
    elif seed in bad:
        warnings.warn(
            f"The losses of {kind} {seed} in {path} became non-finite, so its policy is older than the run.",
            stacklevel=3,
        )
    return seeds[seed]


def bad_seeds(directory: Path) -> set[int]:
    """The training seeds, or members of a population, whose losses became non-finite; their policies are older."""
    steps = {}
    if not has_record(directory):
        steps = {seed: read(path).provenance.get("step", 0) for seed, path in _policies(directory).items()}
    return find_bad_seeds(directory, steps)


def _policies(directory: Path) -> dict[int, Path]:
    """The policy files of a run directory by training seed, or by member of a population, in order."""
    found = {}
    for kind in KINDS:
        for path in directory.glob(f"policy-{kind}-*{SUFFIX}"):
            number = path.name.removeprefix(f"policy-{kind}-").removesuffix(SUFFIX)
            if number.isdecimal():
                found[int(number)] = path
    return dict(sorted(found.items()))


def _trained(directory: Path, kind: str, below: int) -> list[int]:
    """The seeds, or members, below a number that a run trains; none of a directory without the run's options."""
    options = directory / "config.json"
    if not options.exists():
        return []
    seeds = range(below) if kind == "member" else read_json(options).get("seeds")
    found = seeds if isinstance(seeds, list | range) else []
    return sorted(number for number in found if type(number) is int and number < below)


def write(path: Path, content: Content) -> None:
    """Writes a policy file atomically; absolute paths in its provenance are reduced to their last component."""
    fields = {field.name: getattr(content.normalisation, field.name) for field in dataclasses.fields(Normalisation)}
    units = {name: values for name, values in fields.items() if values is not None}
    header = {
        "actor": to_json(content.actor),
        "observation_size": len(content.normalisation.observation_mean),
        "action_size": len(content.normalisation.action_low),
        "budget": to_json(content.budget),
        # A float32 survives the conversion to a decimal number and back without loss.
        "normalisation": {name: np.asarray(values, np.float64).tolist() for name, values in units.items()},
        "scores": content.scores,
        "provenance": without_directories(content.provenance),
    }
    payload = io.BytesIO()
    eqx.tree_serialise_leaves(payload, content.networks)
    make_directory(path.parent)
    write_sealed(path, FORMAT, FORMAT_VERSION, header, payload.getvalue())


def without_directories(provenance: Any) -> Any:
    """Copies JSON with absolute paths reduced to their last component, because directories identify users."""
    if isinstance(provenance, dict):
        # Names of columns may begin with a slash too, as those of ROS topics do.
        names = {key: value for key, value in provenance.items() if key in NAMES and not isinstance(value, str)}
        return {key: without_directories(value) for key, value in provenance.items()} | names
    if isinstance(provenance, list | tuple):
        return [without_directories(value) for value in provenance]
    if isinstance(provenance, str):
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(provenance).is_absolute():
                return kind(provenance).name
    return provenance


def read(path: str | os.PathLike[str]) -> Content:
    """Reads a policy file; raises as `read_sealed` does, and a `ValueError` if the content is not a valid policy.

    Warns of optional fields that the header lacks, which take their defaults.
    """
    version, header, payload = read_sealed(path, FORMAT, [2, FORMAT_VERSION])
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            content = _content(_of_today(header) if version == 2 else header, payload)
    except UnknownAgent as error:
        raise UnknownAgent(f"{path}: {error}") from None
    except Exception as error:  # a file that sorl did not write can fail in many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0].removesuffix(".")
        if len(reason) > LONGEST_REASON:
            reason = f"{reason[:LONGEST_REASON]} .."
        raise ValueError(
            f"{path} was sealed over a content that makes no policy ({reason}); write it again with Policy.save."
        ) from error
    if caught:
        warnings.warn(f"{path}: {' '.join(str(warning.message) for warning in caught)}", stacklevel=3)
    return content


def _content(header: dict[str, Any], payload: bytes) -> Content:
    # Check the header's fields and sizes before any array is created.
    missing = [name for name in _REQUIRED if name not in header]
    unknown = sorted(header.keys() - {*_REQUIRED, *_OPTIONAL})
    if missing or unknown:
        raise ValueError(
            f"its header lacks {missing} and has {unknown} besides, so another version of sorl may have written it"
        )
    sizes = header["observation_size"], header["action_size"]
    if not all(type(size) is int and 0 < size <= MOST_OBSERVATIONS for size in sizes):
        raise ValueError(f"the sizes of observation and action are {sizes}")
    _refuse_absurd_sizes(header, len(payload))
    # Optional fields that are missing take their defaults.
    actor = actor_from_json(header["actor"], "the header")
    defaults = {"budget": to_json(actor.budgets.usual), "scores": [], "provenance": {}}
    lacking = [name for name in _OPTIONAL if name not in header]
    if lacking:
        warnings.warn(f"the header does not have {', '.join(lacking)}; the defaults are taken.", stacklevel=2)
    header = defaults | header
    if not isinstance(header["provenance"], dict):
        raise ValueError(f"the provenance is {header['provenance']!r}")
    budget = budget_from_json(header["budget"], "the budget")
    actor.budgets.refuse(budget)
    return Content(
        actor,
        _networks(actor, sizes, payload),
        _normalisation(sizes, header["normalisation"]),
        header["provenance"],
        checked_scores(header["scores"]),
        budget,
    )


def _of_today(header: dict[str, Any]) -> dict[str, Any]:
    """Converts a header of version 2 to version 3: the actor replaces the agent, which moves to the provenance."""
    if "agent" not in header:
        raise ValueError("its header lacks ['agent']")
    actor = agent_from_json(header["agent"], "the header").actor
    trained_steps = header.get("trained_steps", list(actor.budgets.trained_steps))
    if trained_steps != list(actor.budgets.trained_steps):
        raise ValueError(f"trained_steps is {trained_steps} but the agent's are {list(actor.budgets.trained_steps)}")
    kept = {name: value for name, value in header.items() if name not in ("agent", "trained_steps")}
    if isinstance(header.get("provenance"), dict):
        kept["provenance"] = {"agent": header["agent"]} | header["provenance"]
    return {"actor": to_json(actor)} | kept


def _refuse_absurd_sizes(header: dict[str, Any], payload_bytes: int) -> None:
    """Raises a `ValueError` for sizes that are impossible in a file of this length, before memory is allocated."""
    actor = header["actor"] if isinstance(header["actor"], dict) else {}
    scores = header.get("scores")
    budgets = [header.get("budget"), *(scores if isinstance(scores, list) else [])]
    named = list(actor.items())
    names = [field.name for field in dataclasses.fields(Budget)]
    named += [(name, row[name]) for row in budgets if isinstance(row, dict) for name in names if name in row]
    for name, value in named:
        if any(type(size) is int and abs(size) > MOST for size in (value if isinstance(value, list) else [value])):
            raise ValueError(f"its {name} is above {MOST}")
    layers = [len(value) for value in actor.values() if isinstance(value, list)]
    blocks = actor.get("blocks")
    if sum(layers) + (blocks if type(blocks) is int else 0) > payload_bytes // ARRAY_BYTES:
        raise ValueError("its arrays are not those of the networks that its header describes")


def _networks(actor: AbstractActor, sizes: tuple[int, int], payload: bytes) -> PyTree:
    template = _template(actor, *sizes)
    described = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(template)) * np.dtype(np.float32).itemsize
    if described > len(payload):
        raise ValueError("its arrays are not those of the networks that its header describes")
    stream = io.BytesIO(payload)
    try:
        networks = eqx.tree_deserialise_leaves(stream, template, filter_spec=_next_array)
    except Exception as error:  # equinox, numpy or the allocator raised it, with a message that does not help the user
        raise ValueError("its arrays are not those of the networks that its header describes") from error
    if stream.read(1):
        raise ValueError("something follows the last of its arrays")
    return networks


def _next_array(stream: io.BytesIO, leaf: Any) -> jax.Array:
    return jax.device_put(np.load(stream))  # equinox's own compiles a program for each shape


@functools.lru_cache(maxsize=64)
def _template(actor: AbstractActor, observation_size: int, action_size: int) -> PyTree:
    """The structure of the networks; cached, because tracing them takes most of the time to load a small policy."""
    return actor.template(observation_size, actor.actions_at_once * action_size)


def _normalisation(sizes: tuple[int, int], units: dict[str, Any]) -> Normalisation:
    unknown = sorted(units.keys() - {field.name for field in dataclasses.fields(Normalisation)})
    if unknown:
        raise ValueError(f"the normalisation has the unknown {unknown[0]!r}, perhaps of a newer version of sorl")
    arrays = {name: np.asarray(values, np.float32) for name, values in units.items()}
    normalisation = Normalisation(**{name: jax.device_put(array) for name, array in arrays.items()})
    observation_size, action_size = sizes
    if any(
        array.shape != (action_size if name.startswith("action") else observation_size,)
        for name, array in arrays.items()
    ):
        raise ValueError(f"the normalisation is not one for the sizes {sizes}")
    if not all(np.isfinite(array).all() for array in arrays.values()) or not (arrays["observation_scale"] > 0).all():
        raise ValueError("the normalisation is not finite, or its scale is not positive")
    for name in ("observation", "action"):
        if normalisation.is_of_own_logs and np.any(arrays.get(f"{name}_low", 0) > arrays.get(f"{name}_high", 0)):
            raise ValueError(f"the normalisation has a {name}_low above {name}_high")
    return normalisation
