"""Minari's data sets on this machine: where they lie, and the environments that they were recorded in.

Worker processes import this file, so it must not import jax.
"""

import os
import re
from pathlib import Path
from typing import Any

from sorl.system.files import read_json


PREFIX = "minari:"
METADATA = Path("data") / "metadata.json"


def directory_of(name: Path | str) -> Path | None:
    """The directory of a data set named by its path, by its id, or by `minari:` and either; None if there is none.

    Ids are looked up in `MINARI_DATASETS_PATH`, or in `~/.minari/datasets`, as Minari does.
    """
    text = str(name).rpartition(PREFIX)[2]
    home = Path(os.environ.get("MINARI_DATASETS_PATH") or os.path.expanduser("~/.minari/datasets"))
    # `os.path.isfile`, because the home directory may be another user's, where a `Path` would raise.
    return next((place for place in (Path(text), home / text) if os.path.isfile(place / METADATA)), None)


def found(name: Path | str) -> Path:
    """As `directory_of`, but raises a `FileNotFoundError`, one sentence, if there is none."""
    directory = directory_of(name)
    if directory is None:
        text = str(name).rpartition(PREFIX)[2]
        raise FileNotFoundError(
            f"There is no Minari data set {text} on this machine; fetch it with `minari download {text}`, or set "
            "MINARI_DATASETS_PATH."
        )
    return directory


def recovered_environment(name: str, render_mode: str | None) -> Any:
    """The environment for evaluation that a data set describes, as `recover_environment` of Minari makes it.

    Raises a `ValueError` or an `ImportError`, one sentence, if it describes none or a requirement is missing.
    """
    import gymnasium
    import minari

    dataset = minari.MinariDataset(found(name) / "data")
    if dataset.env_spec is None:
        raise ValueError(f"The Minari data set {name} does not say which environment it is from; give --env MODULE:ID.")
    try:
        return dataset.recover_environment(eval_env=True, render_mode=render_mode)
    except (ModuleNotFoundError, gymnasium.error.DependencyNotInstalled) as error:
        text = " ".join(str(error).split()).rstrip(".")
        raise ImportError(
            f"The environment of the Minari data set {name} needs what is not installed: {text}."
        ) from error
    except gymnasium.error.Error as error:
        text = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"The environment of Minari's {name} cannot be made ({text}); install the package that registers it, or "
            "give --env MODULE:ID."
        ) from error


def recorded_packages(name: str) -> list[str]:
    """The packages of the environments and wrappers that a data set describes; empty if there is no such data set."""
    directory = directory_of(name)
    if directory is None:
        return []
    metadata = read_json(directory / METADATA)
    described = " ".join(str(metadata.get(key)) for key in ("env_spec", "eval_env_spec"))
    return [name for name in re.findall(r'"entry_point": "([A-Za-z_]\w*)', described) if name != "__main__"]


def reference_scores(env_name: str) -> tuple[float, float] | None:
    """The mean returns that count as 0 and 1 in the normalised score of `minari:ID`; None if they are not known."""
    if not env_name.startswith(PREFIX):
        return None
    metadata = read_json(found(env_name.partition("[")[0]) / METADATA)
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    return None if low is None or high is None or low == high else (float(low), float(high))
