"""A small `SorlPlus` with all switches off."""

from typing import Any

from sorl.agents import SorlPlus

from .. import synthetic


def plus(**fields: Any) -> SorlPlus:
    """With the switches of `fields` on; `synthetic.tiny` alone would set two candidates."""
    return synthetic.tiny(SorlPlus, **({"backup_candidates": 1} | fields))
