"""What converted data keep of their source: the names of columns, the frame rate, the environment and its scores."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sorl.data.recorded.episodes import Recording


def with_origin(found: Recording, about: Any) -> Recording:
    """A recording with what its provenance says, `Recording.about` of the source; unchanged if that does not fit it."""
    if not isinstance(about, dict):
        return found
    names: dict[str, Any] = {
        key: tuple(map(str, about.get(key) or ())) for key in ("observation_names", "action_names")
    }
    if any(len(names[key]) != len(getattr(found, key)) for key in names):
        return found
    scores, rate = about.get("reference_scores"), about.get("frame_rate")
    return dataclasses.replace(
        found,
        **names,
        frame_rate=float(rate) if isinstance(rate, int | float) else None,
        environment=about.get("environment"),
        reference_scores=(float(scores[0]), float(scores[1])) if isinstance(scores, list) else None,
        held_out=frozenset(f"episode {number}" for number in held_out(about)),
    )


def recorded_environment(provenance: Mapping[str, Any]) -> str | None:
    """The environment that logs were recorded in, by the provenance of data of any format; None if it is not known."""
    about = provenance.get("about")
    found = about.get("environment") if isinstance(about, dict) else provenance.get("environment")
    return found if isinstance(found, str) else None


def refuse_other_order(env_name: str, provenance: Mapping[str, Any]) -> None:
    """Raises a `ValueError` if logs of this environment may have the parts of its observations in another order.

    **Arguments:** `provenance` of the logs, which names the environment that they were recorded in, with these parts.
    """
    recorded = recorded_environment(provenance)
    if recorded and recorded != env_name and recorded.partition("[")[0] == env_name.partition("[")[0]:
        raise ValueError(
            f"The logs have the observations of {recorded}, which {env_name} may give in another order; give "
            f"--env '{recorded}'."
        )


def refuse_other_columns(path: object, now: Mapping[str, Any], before: Mapping[str, Any], whose: str) -> None:
    """Raises a `ValueError` if data have the same columns as earlier data, but in another order.

    **Arguments:** `path` of the data; `now` and `before`, the provenances of these and of the earlier data; `whose`,
    the name of the earlier data in the message. Columns of other names are not judged, and data without names neither.
    """
    for kind in ("observation", "action"):
        old, new = (_names(provenance, f"{kind}_names") for provenance in (before, now))
        if old != new and sorted(old) == sorted(new):
            column = next(number for number, name in enumerate(new) if name != old[number])
            raise ValueError(
                f"{path} has {new[column]} in column {column} of its {kind}s, where {whose} has {old[column]}; give "
                f"the {kind}s in the order {', '.join(old)}."
            )


def _names(provenance: Mapping[str, Any], key: str) -> list[str]:
    """The names of columns in the provenance of data of any format; empty if they are not known."""
    about = provenance.get("about")
    names = provenance.get(key) or (about.get(key) if isinstance(about, dict) else None)
    return [str(name) for name in names] if isinstance(names, list | tuple) else []


def held_out(about: Any) -> list[int]:
    """The numbers of the episodes that the source of converted data kept for validation."""
    numbers = about.get("held_out") if isinstance(about, dict) else None
    return [number for number in numbers if type(number) is int] if isinstance(numbers, list) else []
