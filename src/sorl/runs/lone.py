"""The options of the run that a lone policy came from, as far as the policy's own record has them."""

from pathlib import Path
from typing import Any, get_args

from sorl.config.json_form import agent_from_json
from sorl.config.options import DataConfig, EvaluationConfig, MatmulPrecision, TrainConfig
from sorl.policy import Policy


def recorded_config(policy: Policy, where: Path) -> TrainConfig:
    """The options with which a policy's run began: environment, agent, seed, timing of success and precision.

    Those that only training uses, such as the number of updates, are the defaults.

    **Arguments:** `where`, the policy's file, for messages. Raises a `ValueError`, one sentence, if the policy was not
    saved by `sorl.train`, so that it has no record.
    """
    record = policy.provenance
    versions: Any = record.get("versions", {})
    try:
        agent, data, timing = record["agent"], versions["data"], versions["success_timing"]
        path = Path(data["path"]) if data["source"] == "own logs" else None
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{where} has no record of its run ({error.args[0]}), as policies of sorl.train have; evaluate it in "
            "Python with sorl.evaluate_policy."
        ) from error
    precision = versions.get("jax_default_matmul_precision")  # version 0.1.0 did not record it
    return TrainConfig(
        env=record.get("env"),
        agent=agent_from_json(agent, str(where)),
        data=DataConfig(path=path),
        evaluation=EvaluationConfig(interval=0, success_timing=timing),
        seeds=(record.get("seed", 0),),
        # JAX's other names, such as highest, are no options of a run.
        matmul_precision=precision if precision in get_args(MatmulPrecision) else "float32",
    )
