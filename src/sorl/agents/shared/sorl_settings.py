"""Settings that `Sorl` and `SorlReleased` share: those of the paper and of the quickstart."""

from collections.abc import Mapping
from typing import Any

from sorl.agents.shared.published import AGGREGATION, DISCOUNT, Published, rows


# Sources: settings from the released code, success rates from the paper's table.
PUBLISHED = Published(
    rows(
        (89, 9, 64, 5, 69, 97, 25, 57),
        q_coefficient=[500.0, 500.0, 100.0, 500.0, 500.0, 10.0, 50.0, 100.0],
        discount=DISCOUNT,
        q_aggregation=AGGREGATION,
    )
)

# Chosen by measurement for the quickstart's networks (docs/studies/quickstart.md); all differ from the published ones.
QUICKSTART: Mapping[str, Any] = {
    "discretization_steps": 4,
    "backprop_steps": 4,
    "learning_rate": 1e-3,
    "q_coefficient": 10.0,
    "discount": 0.99,
    "q_aggregation": "mean",
}
