"""Sinks that copy a run's metrics to TensorBoard or Weights & Biases, which are imported only when used."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


_TENSORBOARD = "tensorboardX", "TensorBoard", "tensorboard"
_WANDB = "wandb", "Weights & Biases", "wandb"


def refuse_missing(*, tensorboard: bool, wandb: bool) -> None:
    """Raises an `ImportError`, one sentence, if the package of a sink is not installed."""
    for names in [_TENSORBOARD] * tensorboard + [_WANDB] * wandb:
        _import(*names)


class TensorBoardSink:
    """Copies rows to TensorBoard, one run per seed: `directory/seed_0`, ...; with the kind `member`, one per member.

    **Arguments:** `directory`; `kind`, the first part of the names; `resume_step`, as for `MetricLog`, so that
    TensorBoard drops later points.

    **Raises:** `ImportError` if tensorboardX is not installed.
    """

    def __init__(self, directory: str | os.PathLike[str], *, kind: str = "seed", resume_step: int | None = None):
        self._package = _import(*_TENSORBOARD)
        self._directory, self._kind = Path(directory), kind
        self._purge_step = None if resume_step is None else resume_step + 1
        self._writers: dict[int, Any] = {}

    def write(self, step: int, seed: int, metrics: Mapping[str, float]) -> None:
        """Copies one row."""
        if seed not in self._writers:
            logdir = str(self._directory / f"{self._kind}_{seed}")
            # The package's default keeps rows back for two minutes, so that a run that is killed would lose rows from
            # before its checkpoint, which a resume does not write again; now it loses at most the last second's.
            self._writers[seed] = self._package.SummaryWriter(logdir, purge_step=self._purge_step, flush_secs=1)
        for name, value in metrics.items():
            self._writers[seed].add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes the remaining rows and closes the writers."""
        for writer in self._writers.values():
            writer.close()


class WandbSink:
    """Copies rows to Weights & Biases as `seed_0/training/q_loss`, ..., over the axis `step`; `kind` is the first part.

    A resumed run continues under the same id, which is kept in `directory`; the points between its checkpoint and the
    interruption are sent again, and those that W&B had not yet written when a run was killed are missing
    (`metrics.jsonl` has each once).

    **Arguments:** `directory`, for W&B's own files; `config`, shown with the run. With the environment variable
    `WANDB_MODE=offline` everything stays in `directory` until `wandb sync` is called.

    **Raises:** `ImportError` if wandb is not installed; `RuntimeError` if it cannot start, as without a login.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, kind: str = "seed", config: Mapping[str, Any] | None = None
    ):
        package = _import(*_WANDB)
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        id_file = directory / "run_id.txt"
        if not id_file.exists():
            id_file.write_text(os.urandom(8).hex(), encoding="utf-8")
        self._kind = kind
        try:
            self._run = package.init(
                project="sorl",
                dir=str(directory),
                config=dict(config or {}),
                id=id_file.read_text(encoding="utf-8"),
                resume="allow",
            )
        except package.Error as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise RuntimeError(
                f"Weights & Biases cannot start ({reason}); run `wandb login`, set WANDB_MODE=offline, or leave "
                "--wandb out."
            ) from error
        # Several seeds log the same step, which W&B's own step counter does not allow.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, seed: int, metrics: Mapping[str, float]) -> None:
        """Copies one row."""
        self._run.log({"step": step} | {f"{self._kind}_{seed}/{name}": value for name, value in metrics.items()})

    def close(self) -> None:
        """Flushes the remaining rows and ends the run at W&B."""
        self._run.finish()


def _import(package: str, product: str, extra: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ImportError(
            f'{product} logging needs {package}, which is not installed; run: pip install "sorl[{extra}]"'
        ) from error
