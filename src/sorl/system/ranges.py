"""Range checks of options: each raises a `ValueError`, one sentence that names the option, its value and the range."""

from typing import Any


MAX_COUNT = 2**31 - 1
"""The largest whole number that a step counter holds."""
MAX_NUMBER = 1e12
"""The largest magnitude of a real option: far above any sensible one, and finite in float32."""

Range = tuple[int, int] | tuple[float, float]
"""The lowest and the highest value, both allowed."""


def refuse_outside(options: Any, prefix: str = "", /, **ranges: Range) -> None:
    """Refuses a number, or a number in a tuple, outside its range; NaN is outside every range.

    **Arguments:** `options`, what has the fields; `prefix`, such as "data.", stands before their names in the message;
    `ranges` by the field's name. None, and arrays (whose values are unknown inside jit), are not checked.
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
