"""Observations made of several arrays: which, in which order, and the names of their columns."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Shaped

from sorl.system.names import nearest


def chosen_keys(
    where: object, wanted: Sequence[str] | None, known: Mapping[str, bool], *, default: Sequence[str] | None = None
) -> tuple[list[str], list[str]]:
    """The keys to concatenate, in order, and those left out.

    **Arguments:** `wanted`, the user's keys (None: `default`); `known`, all keys of the source, and whether each is an
    array of numbers with at most one axis beside the steps (and so no image); `default` (None: all arrays of numbers).

    Raises a `ValueError` for unknown or repeated keys, for images, and if nothing is left.
    """
    usable = [key for key, is_usable in known.items() if is_usable]
    keys = list(wanted) if wanted else list(usable if default is None else default)
    for key in keys:
        if key not in known:
            raise ValueError(
                f"{where} has no observation {key!r}{nearest(key, list(known))}; it has {', '.join(known) or 'none'}."
            )
        if not known[key]:
            raise ValueError(
                f"{key} of {where} is an image or no array of numbers, which policies cannot use; "
                f"{'choose among ' + ', '.join(usable) if usable else 'no other observation can be used either'}."
            )
    if len(set(keys)) < len(keys):
        raise ValueError(f"The observation keys {', '.join(keys)} repeat one; name each once.")
    if not keys:
        raise ValueError(
            f"{where} has only images as observations ({', '.join(known) or 'none at all'}), but policies need vectors "
            "of numbers; give data with low-dimensional observations."
        )
    return keys, [key for key in known if key not in keys]


def joined(where: object, parts: Mapping[str, Shaped[np.ndarray, "rows ..."]]) -> Shaped[np.ndarray, "rows size"]:
    """The arrays side by side as columns, in the widest of their dtypes.

    Whole numbers beside floating-point ones become float64, which rounds those beyond 2^53.

    Raises a `ValueError` if their numbers of rows differ.
    """
    flat = {
        key: part.reshape(len(part), -1) if part.size else part.reshape(len(part), 0) for key, part in parts.items()
    }
    rows = {key: len(part) for key, part in flat.items()}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{key} {count}" for key, count in rows.items())
        raise ValueError(f"{where} has rows: {counts}; give all the same number.")
    arrays = list(flat.values())
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)


def column_names(key: str, size: int, names: Sequence[str] | None = None) -> list[str]:
    """The names of the columns of one array: `key` alone, or `key[index]` or `key[name]` for each column."""
    if names is not None and len(names) == size:
        return [f"{key}[{name}]" for name in names]
    return [key] if size == 1 else [f"{key}[{index}]" for index in range(size)]
