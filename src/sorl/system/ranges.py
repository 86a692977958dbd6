"""Range checks of options: each raises a `ValueError`, one sentence that names the option, its value and the range."""

from typing import Any


MAX_COUNT = 2**31 - 1
"""The largest whole number that an int32 step counter holds."""
MAX_NUMBER = 1e12
"""The largest magnitude of a real option: far above any useful value, and finite in float32."""

Range = tuple[int, int] | tuple[float, float]
"""The lowest and the highest value, both allowed."""


def refuse_outside(options: Any, prefix: str = "", /, **ranges: Range) -> None:
    """Raises a `ValueError` if a field's number, or a number in its tuple, is outside the field's range.

    NaN is outside every range. None and arrays (whose values are unknown inside jit) are not checked.

    **Arguments:** `options`, the object with the fields; `prefix`, such as "data.", written before a field's name in
    the message; `ranges`, by field name.
    """
    for name, (low, high) in ranges.items():
        value = getattr(options, name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not low <= number <= high:
                kind = "whole numbers" if isinstance(low, int) else "numbers"
                kind = kind if isinstance(value, tuple) else f"a {kind[:-1]}"
                raise ValueError(f"{prefix}{name} is {value}; give {kind} from {_plain(low)} to {_plain(high)}.")


def _plain(number: int | float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"
