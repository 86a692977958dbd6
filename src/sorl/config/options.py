"""The options of a training run, which are enough to repeat it."""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sorl.agents import AbstractAgent, Budget, Sorl
from sorl.agents.registry import any_agent, refuse_unknown_actor
from sorl.config.json_form import ABSENT, from_json
from sorl.config.population import Member, Population, members
from sorl.data.recorded.rewards import RewardRule
from sorl.data.residence import Residence
from sorl.data.sources import FORMAT_OPTIONS, Generated, Ogbench, Source, refuse_unused, user_source
from sorl.environments.named import is_ogbench
from sorl.environments.pool import STEP_TIMEOUT, refuse_timeout
from sorl.system.files import read_json
from sorl.system.ranges import MAX_COUNT, MAX_NUMBER, refuse_outside


MatmulPrecision = Literal["float32", "tensorfloat32", "bfloat16"]

MAX_EPISODES = 1_000_000
"""The most episodes of one evaluation."""
MAX_WORKERS = 4_096
"""The most processes of one evaluation."""
MAX_SEEDS = 1_024
FINAL_EPISODES = 50
"""Episodes of each row of the table after the last update, unless the run is a short trial."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Training data: OGBench's official files, generated episodes, or your own logs."""

    path: Annotated[Path | None, tyro.conf.arg(name="data", prefix_name=False)] = None
    """Your own logs: an npz file (`sorl.load_logs` documents its keys), a data directory, HDF5 of D4RL or robomimic,
    parquet or CSV, or a Minari or LeRobot set; an environment to evaluate in is optional; default: none."""
    directory: Annotated[Path | None, tyro.conf.arg(name="data-dir", prefix_name=False)] = None
    """Directory to search for OGBench's files before OGBench's own cache; default: only that cache."""
    episodes: int | None = None
    """Number of episodes to generate with OGBench's oracles (an existing set is reused); default: the official data
    set."""
    generation_seed: int = 0
    """Seed of the generated episodes."""
    mirrors: tuple[str, ...] = ()
    """Base addresses to try in this order if the official host of OGBench's files fails, such as
    https://huggingface.co/datasets/zhouzypaul/ogbench_datasets/resolve/main (OGBench's issue 49)."""
    download: bool = True
    """Download OGBench's files that are not found."""
    validation_fraction: float = 0.1
    """Fraction of your own logs' episodes held out for validation losses, in [0, 1)."""
    observation_margin: float | None = dataclasses.field(default=1.5, metadata={ABSENT: None})
    """With your own logs: clip observations to centre +- margin * half of each logged range (>= 1; None: no clipping),
    so that a sensor far outside the logs cannot drive the networks to an arbitrary output."""
    action_low: tuple[float, ...] | None = None
    """With your own logs: lower limits of the actions, one for each action or one for all; default: those in the file,
    or else the lowest logged actions."""
    action_high: tuple[float, ...] | None = None
    """Upper limits of the actions, together with --data.action-low; default: those in the file, or else the highest
    logged actions."""
    observation_keys: tuple[str, ...] | None = None
    """Arrays to concatenate as observations, in this order, for data that have several; default: all vectors of numbers
    in the data's own order, which `sorl.inspect` shows."""
    reward: tuple[str, ...] | None = None
    """Where rewards come from: success-at-end (1 at the last step of episodes that end in success), last-step (1 at the
    last step of each), or from COLUMN; default: as logged."""
    split: str | None = None
    """List of demonstrations in mask/ of a robomimic file to use; default: all, of which mask/valid is held out."""
    columns: Path | None = None
    """TOML file that names the columns of an npz, parquet or CSV file; default: {name}.toml beside it, and own logs'
    names for npz files without one."""
    residence: Residence = "auto"
    """Where the data stay while training: on the device; on the host, in memory; or on disk, as data directories can.
    Batches are the same, so that a run may change it when it is resumed; auto: the fastest for which there is memory,
    which is printed."""
    reward_scale: float = 1.0
    """With your own data: multiply every reward by this, so that values are neither tiny nor huge (`sorl.inspect` says
    what to expect); evaluations do not change."""
    sparse_rewards: bool = False
    """Train on -1 for every reward other than 0, on any data and with any agent; evaluations do not change."""

    def __post_init__(self):
        refuse_outside(
            self,
            "data.",
            episodes=(1, 10_000_000),
            generation_seed=(0, 2**32 - 1),
            validation_fraction=(0.0, 0.999),
            reward_scale=(1 / MAX_NUMBER, MAX_NUMBER),
            observation_margin=(1.0, MAX_NUMBER),
            action_low=(-MAX_NUMBER, MAX_NUMBER),
            action_high=(-MAX_NUMBER, MAX_NUMBER),
        )
        RewardRule.of(self.reward)

    def source(self, env: str | None) -> Source:
        """The data source of these options; it has the fields of the same names.

        **Arguments:** `env`, the environment of OGBench's data; own logs do not need it.
        """
        if self.path is not None:
            kind = user_source(self.path, self.columns)
            refuse_unused(kind, self.path, {name: getattr(self, name) for name in FORMAT_OPTIONS})
            return kind(**{field.name: getattr(self, field.name) for field in dataclasses.fields(kind)})
        if env is None:
            raise ValueError("There is neither an environment nor a file of logs; give --env, --data, or both.")
        if self.episodes is None:
            return Ogbench(env, self.directory, self.mirrors, self.download, self.sparse_rewards, self.residence)
        return Generated(env, self.episodes, self.generation_seed, self.sparse_rewards, self.residence)


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """When and how to evaluate the policy in the environment, during and after training."""

    interval: int = 100_000
    """Updates between evaluations; 0: no evaluations, and no table after the last update."""
    episodes: int = 50
    """Episodes of each evaluation, for each seed and budget."""
    inference_steps: tuple[int, ...] | None = None
    """Numbers of inference steps M^inf (jumps or integration steps) during training; default: the agent's own."""
    candidates: tuple[int, ...] | None = None
    """Numbers of candidate actions N during training (the best by Q is taken); default: the agent's usual."""
    final_inference_steps: tuple[int, ...] | None = None
    """Numbers of inference steps of the table after the last update; default: the agent's own."""
    final_candidates: tuple[int, ...] | None = None
    """Numbers of candidates of the table after the last update; default: the agent's own."""
    final_episodes: int | None = None
    """Episodes of each row of the table after the last update, for each seed; default: 50, proportionally fewer where
    `episodes` is below 20 or the run has fewer updates than `interval`."""
    success_timing: Literal["pre", "post"] = "pre"
    """The state by which success is judged: before a step (pre, as in OGBench >= 1.2 and the quickstart) or after it
    (post, as in OGBench 1.1, the papers and the paper preset)."""
    workers: int | None = None
    """Processes that simulate one environment each, at most one per episode; results do not depend on it; default:
    50."""
    step_timeout: float = STEP_TIMEOUT
    """Seconds after which a simulator's step or reset counts as hung: its process is killed and the evaluation
    fails."""
    overlap: bool | None = None
    """Continue training while an evaluation runs, with its policy on the CPU; default: True unless training
    is on the CPU."""

    def __post_init__(self):
        refuse_outside(
            self,
            "evaluation.",
            interval=(0, MAX_COUNT),
            episodes=(1, MAX_EPISODES),
            final_episodes=(1, MAX_EPISODES),
            workers=(1, MAX_WORKERS),
        )
        refuse_timeout(self.step_timeout)
        for name in ("inference_steps", "candidates", "final_inference_steps", "final_candidates"):
            values = getattr(self, name)
            if values is not None and (not values or min(values) < 1):
                raise ValueError(f"evaluation.{name} is {values}; give at least one number, each >= 1.")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Trains a policy from logged data, and evaluates it at every compute budget.

    Without options it runs the quickstart: cube-single, task 1, on 100 generated episodes, sized for two CPU cores.
    `--env NAME` uses the published settings for that environment, `--data LOGS` (with or without an environment) those
    for own logs. `agent:NAME`, anywhere, chooses the algorithm. Every field can be set separately.
    """

    env: str | None = "cube-single-play-singletask-task1-v0"
    """Environment to evaluate in: OGBench's name of a single-task data set, or with your own logs also MODULE:ID of
    Gymnasium, such as gymnasium:Pendulum-v1, where MODULE registers ID; None only with your own logs."""
    agent: Annotated[AbstractAgent, tyro.conf.arg(constructor_factory=any_agent)] = dataclasses.field(
        default_factory=Sorl
    )
    """The algorithm and its hyper-parameters."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    """Training data."""
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    """When and how to evaluate."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds, which are trained together; they share only the data and the jump counts."""
    population: Population = ()
    """Values of float hyper-parameters of the agent, such as agent.q-coefficient 10 50 100: every combination of values
    is trained with every seed, all in one program; default: only the agent's own values."""
    updates: int = 1_000_000
    """Number of updates."""
    batch_size: int = 256
    """Transitions of one update."""
    log_interval: int = 5_000
    """Updates between rows of metrics, which are means over that interval."""
    checkpoint_interval: int = 100_000
    """Updates between checkpoints; another one is written at the end, and when a signal stops the run."""
    seed_mapping: Literal["auto", "map", "vmap"] = "auto"
    """Train seeds one by one (map, bit for bit as each alone) or at once (vmap); auto: map on a CPU, else vmap."""
    matmul_precision: MatmulPrecision = "float32"
    """Input precision of matrix products, in JAX's terms; ignored on a CPU. tensorfloat32: TF32 on a GPU, three
    bfloat16 passes on a TPU. bfloat16: the device's fastest, which is TF32 on a GPU and one pass on a TPU. Everything
    else is float32. Evaluations use the same precision."""

    def __post_init__(self):
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds are {self.seeds}; give at least one, each >= 0 and named once.")
        if len(self.seeds) > MAX_SEEDS:
            raise ValueError(f"There are {len(self.seeds)} seeds; give at most {MAX_SEEDS}.")
        if max(self.seeds) >= 2**32:
            raise ValueError(f"One of the seeds is {max(self.seeds)}; give seeds below 2^32.")
        if (size := len(self.seeds) * math.prod(len(varied.values) for varied in self.population)) > MAX_SEEDS:
            raise ValueError(f"population and seeds make {size} members; give at most {MAX_SEEDS}.")
        _ = self.members  # raises if the population is invalid
        refuse_unknown_actor(self.agent)
        refuse_outside(
            self,
            updates=(1, MAX_COUNT),
            batch_size=(1, 2**20),
            log_interval=(1, MAX_COUNT),
            checkpoint_interval=(1, MAX_COUNT),
        )
        for final in (False, True):
            self.budgets(final=final)
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        """Raises a `ValueError`, one sentence, if the environment, data and evaluations contradict each other."""
        # Without an environment, there must be logs and no evaluations.
        evaluation, data = self.evaluation, self.data
        if self.env is None and data.path is None:
            raise ValueError("There is neither an environment nor a file of logs; give --env, --data, or both.")
        if self.env is None and evaluation.interval:
            raise ValueError(
                f"evaluation.interval is {evaluation.interval} but there is no environment to play in; set it to 0."
            )
        # An environment of Gymnasium has no data of its own, and judges success itself.
        if self.env is not None and not is_ogbench(self.env):
            if data.path is None:
                raise ValueError(
                    f"env is {self.env!r}, for which there are no data but your own; give your logs with --data too."
                )
            if evaluation.success_timing != "pre":
                raise ValueError(
                    f"evaluation.success_timing is {evaluation.success_timing} but {self.env} judges success itself; "
                    "leave it out, or give pre."
                )
        # Options of one source of data are refused if another source is used, because they would have no effect.
        given = [name for name in FORMAT_OPTIONS if getattr(data, name) is not None]
        if data.path is None and given:
            raise ValueError(f"data.{given[0]} is for your own data; give --data too, or omit it.")
        if data.path is None and data.reward_scale != 1:
            raise ValueError("data.reward_scale is for your own data; give --data too, or omit it.")
        if data.path is None and (data.action_low is not None or data.action_high is not None):
            raise ValueError(
                "data.action_low and data.action_high are for your own logs; give --data too, or omit them."
            )
        if data.directory is not None and data.episodes is not None:
            raise ValueError(
                f"data-dir is {data.directory} and data.episodes {data.episodes}, but generated episodes "
                "have their own directory; add --data.episodes None to use the files in the directory."
            )

    @functools.cached_property
    def members(self) -> dict[int, Member]:
        """The members that are trained together, in order: by seed without a population, else by number."""
        return members(self.agent, self.seeds, self.population)

    @property
    def shared_agent(self) -> AbstractAgent:
        """The agent whose hyper-parameters all members have, except for those that the population varies."""
        return next(iter(self.members.values())).agent

    @property
    def source(self) -> Source:
        """The source of the training data."""
        return self.data.source(self.env)

    @property
    def success_timing(self) -> Literal["pre", "post"] | None:
        """When success is judged; None without an environment, or if the environment judges success itself."""
        return self.evaluation.success_timing if self.env is not None and is_ogbench(self.env) else None

    @property
    def final_episodes(self) -> int:
        """Episodes of each row of the table after the last update, for each seed."""
        evaluation = self.evaluation
        if evaluation.final_episodes is not None:
            return evaluation.final_episodes
        share = min(1.0, evaluation.episodes / 20, self.updates / max(evaluation.interval, 1))
        return max(1, round(FINAL_EPISODES * share))

    def budgets(self, *, final: bool) -> list[Budget]:
        """The budgets of an evaluation during training, or of the `final` table after it.

        Raises a `ValueError`, one sentence, if the agent does not support one of them.
        """
        evaluation = self.evaluation
        if final:
            chosen = evaluation.final_inference_steps, evaluation.final_candidates
        else:
            chosen = evaluation.inference_steps, evaluation.candidates
        return self.agent.actor.budgets.grid(*chosen, final=final)


def read_config(path: Path) -> TrainConfig:
    """Reads a `config.json`; fields that an earlier version did not have take the values that it used.

    Raises a `ValueError`, one sentence, if the file is damaged or has an unknown or wrong field.
    """
    return from_json(TrainConfig, read_json(path), str(path))
