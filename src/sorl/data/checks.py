"""Reads arrays from npz files and checks them; each fault is a `ValueError` of one sentence."""

import pathlib
from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Bool, Float, Shaped

from sorl.data import npz
from sorl.data.columns import blocks, eps


Arrays = dict[str, np.ndarray]
"""Arrays by key; after `refuse_wrong_shapes`, their shapes are [rows, ...]."""
LARGEST_REWARD = 1e12
"""The largest reward whose values, squared in a loss, still fit in float32."""
LARGEST_ACTION = 1e30


def stored_keys(path: pathlib.Path) -> list[str]:
    """The keys of an npz file; raises as `read_arrays` does if the file is damaged or not an npz file."""
    with npz.opened(path) as file:
        return list(file.keys)


def read_arrays(path: pathlib.Path, required: Iterable[str], optional: Iterable[str] = ()) -> Arrays:
    """Reads the named arrays of an npz file, without unpickling anything.

    Raises a `ValueError` if the file is not an npz file, is damaged, lacks a required key, or holds anything but
    numbers.
    """
    required = tuple(required)
    with npz.opened(path) as file:
        missing = [key for key in required if key not in file.keys]
        if missing:
            raise ValueError(
                f"{path} lacks {', '.join(missing)}: it holds {', '.join(file.keys) or 'no array'}, "
                f"but {', '.join(required)} are needed."
            )
        return {key: file.read(key) for key in (*required, *optional) if key in file.keys}


def refuse_wrong_shapes(path: pathlib.Path, arrays: Arrays, columns: Iterable[str]) -> None:
    """Raises a `ValueError` unless arrays in `columns` are [rows, size] and all others [rows], with equal rows."""
    refuse_shapes(path, {key: array.shape for key, array in arrays.items()}, columns)


def refuse_shapes(path: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], columns: Iterable[str]) -> None:
    """As `refuse_wrong_shapes`, for arrays that were not read."""
    columns = tuple(columns)
    for key, shape in shapes.items():
        wanted = 2 if key in columns else 1
        if len(shape) != wanted:
            form = "[rows, size]" if wanted == 2 else "[rows]"
            raise ValueError(f"{key} of {path} has shape {list(shape)}; give {form}.")
    refuse_unequal_rows(path, shapes)


def refuse_unequal_rows(path: pathlib.Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises a `ValueError` unless arrays of these shapes have the same number of rows, at least one."""
    rows = {key: shape[0] for key, shape in shapes.items()}
    if len(set(rows.values())) != 1 or 0 in rows.values():
        counts = ", ".join(f"{key} {count}" for key, count in rows.items())
        raise ValueError(f"The arrays of {path} have rows: {counts}; give all the same number, at least one.")


def refuse_not_finite(path: pathlib.Path, arrays: Arrays) -> None:
    """Raises a `ValueError` with the key and the first row that has a NaN or a number too large for float32."""
    for key, array in arrays.items():
        for block in blocks(array.reshape(len(array), -1)):
            finite = (np.abs(array[block]) <= np.finfo(np.float32).max).reshape(len(array[block]), -1).all(axis=1)
            if not finite.all():
                row = block.start + int(np.argmin(finite))
                number = np.asarray(array[row])
                found = first_bad(number, np.abs(number) <= np.finfo(np.float32).max)
                raise ValueError(f"{key} of {path} is not finite in row {row}: {found}; repair or drop that episode.")


def first_bad(row: Shaped[np.ndarray, "*size"], good: Bool[np.ndarray | np.bool_, "*size"]) -> str:
    """Text with the first number of a row that is not good, and its column (a row may have hundreds of numbers)."""
    if row.ndim == 0:
        return str(row)
    column = int(np.argmin(good))
    return f"column {column} is {row[column]}"


def refuse_large(path: pathlib.Path, key: str, array: Shaped[np.ndarray, "rows *size"], largest: float) -> None:
    """Raises a `ValueError` with the first row that has a number of more than the `largest` magnitude."""
    for block in blocks(array.reshape(len(array), -1)):
        small = np.abs(array[block].astype(np.float64)) <= largest
        if not small.all():
            row = int(np.argmin(small.reshape(len(small), -1).all(axis=1)))
            found = first_bad(np.asarray(array[block][row]), small[row])
            raise ValueError(
                f"{key} of {path} in row {block.start + row}: {found}, beyond {largest:g}, where training overflows; "
                "give them in a larger unit."
            )


def refuse_large_actions(path: pathlib.Path, actions: Shaped[np.ndarray, "rows action"]) -> None:
    """Raises a `ValueError` with the first row whose action is outside [-1, 1]."""
    for block in blocks(actions):
        inside = (np.abs(actions[block]) <= 1).all(axis=1)
        if not inside.all():
            row = block.start + int(np.argmin(inside))
            found = first_bad(actions[row], np.abs(actions[row]) <= 1)
            raise ValueError(
                f"actions of {path} leave [-1, 1] in row {row}: {found}, and no action scale is stored; "
                "rescale them, or load the file as your own logs."
            )


def flags(
    path: pathlib.Path, key: str, values: Shaped[np.ndarray, "rows ..."], first_row: int = 0
) -> Bool[np.ndarray, " rows"]:
    """A column of zeros and ones as booleans; raises a `ValueError` with the first row that is neither.

    **Arguments:** `first_row`, the number of the first of these rows.
    """
    if values.size != len(values):
        raise ValueError(f"{key} of {path} has shape {list(values.shape)}; give one number for each step.")
    values = values.reshape(len(values))
    clear = (values == 0) | (values == 1)
    if not clear.all():
        row = int(np.argmin(clear))
        raise ValueError(f"{key} of {path} is {values[row]} in row {first_row + row}; give 0 or 1.")
    return values.astype(np.bool_)


def refuse_open_end(path: pathlib.Path, ends: Bool[np.ndarray, " rows"]) -> None:
    """Raises a `ValueError` unless the last row ends a trajectory."""
    if not ends[-1]:
        raise not_closed(path, len(ends) - 1)


def not_closed(path: pathlib.Path, last_row: int) -> ValueError:
    """The error about data whose last row does not end a trajectory."""
    return ValueError(
        f"The last trajectory of {path} is not closed: row {last_row} is the last and not marked as an end; mark the "
        "last row of every trajectory."
    )


def same_rows(
    one: Shaped[np.ndarray, "rows size"],
    other: Shaped[np.ndarray, "rows size"],
    allowed: float | Float[np.ndarray, " size"] = 0.0,
) -> Bool[np.ndarray, " rows"]:
    """Whether rows are equal up to rounding to the coarser dtype, and up to `allowed` in each column."""
    step = max(eps(one.dtype), eps(other.dtype))
    one, other = one.astype(np.float64), other.astype(np.float64)
    return np.all(np.abs(one - other) <= 2 * step * np.abs(other) + allowed, axis=1)


def whole_numbers_note(path: pathlib.Path) -> str:
    """The sentence about actions that are stored as whole numbers."""
    return f"actions of {path.name} are whole numbers, but the policy acts with real numbers between them."
