"""The picture of a population: its score against the value of a hyper-parameter."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from sorl.statistics.measures import measure_of
from sorl.statistics.rows import Row, settings, settings_text
from sorl.system.pictures import legend, plain


def draw_score_against_value(axes: Any, summary: Sequence[Row], field: str) -> None:
    """Score against the values of a hyper-parameter, with 95 % intervals.

    There is a line for each budget and each combination of the other hyper-parameters.

    **Arguments:** `summary`, rows of `statistics.tables.summarise`; `field`, the dotted name of the hyper-parameter.
    """
    measure = measure_of(summary, "success")
    lines: dict[str, list[Row]] = defaultdict(list)
    for row in summary:
        others = settings_text({name: value for name, value in settings(row).items() if name != field})
        budget = f"$M^{{inf}}$ {row['inference_steps']}, N {row['candidates']}"
        lines[", ".join([*filter(None, [plain(others)]), budget])].append(row)
    for label, rows in lines.items():
        points = [[row[field], *(row[f"{measure.name}{end}"] for end in ("", "_low", "_high"))] for row in rows]
        values, *scores = np.array(sorted(points, key=lambda point: point[0]), float).T
        mean, low, high = (measure.factor * score for score in scores)
        axes.errorbar(values, mean, np.abs([mean - low, high - mean]), marker="o", capsize=3, label=label)
    ticks = sorted({row[field] for row in summary})
    if ticks[0] > 0 and ticks[-1] >= 10 * ticks[0]:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set(xlabel=plain(field), **measure.axis)
    legend(axes, fontsize=8)
