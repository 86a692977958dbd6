"""How many kernels does an update launch on a GPU, of which kinds, and from which lines? No GPU is needed.

JAX's CUDA plugin compiles training's chunk for an H100, and the instructions in the body of its loop over updates are
counted: each is one kernel (or one call of a library). A `conditional` is the switch between branches, for which the
host waits; of the kernels of its branches, the mean is counted. The compilation's seconds of processor time are printed
too; they depend on the machine and on other work beside it.
"""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("kernels")

import dataclasses
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from updates import Pinned, made_up_dataset, make_agent

from sorl.system import command_line
from sorl.system.files import read_json, write_json
from sorl.train import loop
from sorl.train.feeding import validation_batches
from sorl.train.validation import run_validation


H100 = """
gpu_device_info {
  threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: 2048
  shared_memory_per_block: 49152  shared_memory_per_block_optin: 232448  shared_memory_per_core: 233472
  core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  memory_bandwidth: 3352320000000  l2_cache_size: 52428800  device_memory_size: 84942979072
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 1 }
runtime_version { major: 12 minor: 9 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""The device to compile for, as a text of XLA's `GpuTargetConfigProto`."""

_NO_KERNEL = {"after-all", "bitcast", "constant", "get-tuple-element", "parameter", "tuple"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Counts the kernels of one update in the chunk that training runs, compiled for an H100."""

    agent: str = "Sorl"
    """Class name of the agent."""
    losses: Literal["training", "held-out"] = "training"
    """`training`, the chunk of updates; `held-out`, the losses on held-out data, of which one batch is counted."""
    backprop_steps: int = 8
    """M^BTT; an agent without jumps ignores it."""
    jumps: Literal["drawn", "most"] = "drawn"
    """Jump counts of the Q loss and of the TD target: `drawn`, the mean over the counts that training draws from;
    `most`, M^BTT for both."""
    seeds: int = 1
    """Number of seeds, vmapped."""
    width: int = 512
    """Units of each hidden layer."""
    layers: int = 4
    """Hidden layers of policy and critics."""
    batch_size: int = 256
    """Transitions of one update."""
    matmul_precision: Literal["float32", "tensorfloat32", "bfloat16", "BF16_BF16_F32"] = "tensorfloat32"
    """Precision of the factors in matrix products, as in `sorl.train`, or JAX's name of products in bfloat16."""
    lines: int = 20
    """Number of source lines to print, those with the most kernels first."""
    out: Path | None = None
    """JSON file for the counts."""
    before: Path | None = None
    """Such a JSON file of an earlier version, printed beside."""
    program: Path | None = None
    """File for the text of the compiled program."""


class Kernel(NamedTuple):
    """One kernel of an update."""

    kind: str
    """What it is, such as `product` or `fusion (loop)`."""
    line: str
    """The line of the package's source that it was made from, such as `sorl/networks/layers.py:21`, or `unknown`."""
    share: float = 1.0
    """The share of updates that launch it, if all branches of a switch are equally probable."""


def main(config: Config) -> dict[str, Any]:
    """Counts, prints and writes the kernels of an update, and **returns** them by kind and by line."""
    program, seconds = compiled(config)
    if config.program is not None:
        config.program.write_text(program)
    kernels = kernels_of_update(program)
    found = {
        "command": sys.argv,
        "jax": jax.__version__,
        "processor_seconds": round(seconds, 1),
        "kernels": round(sum(kernel.share for kernel in kernels), 1),
        "by_kind": totals((kernel.kind, kernel.share) for kernel in kernels),
        "by_line": totals((kernel.line, kernel.share) for kernel in kernels),
    }
    before = {} if config.before is None else read_json(config.before)
    show(found, before, config.lines, "an update" if config.losses == "training" else "a held-out batch")
    if config.out is not None:
        write_json(config.out, found)
    return found


def totals(shares: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The sum of the shares of each name, largest first."""
    sums = Counter[str]()
    for name, share in shares:
        sums[name] += share  # type: ignore[assignment]  # a counter of floats
    return {name: round(share, 1) for name, share in sums.most_common()}


def compiled(config: Config) -> tuple[str, float]:
    """The text of the program, compiled for an H100, and the processor seconds that XLA took for it."""
    # Only the shapes of the arguments matter; the state is made on the CPU.
    agent = make_agent(config.agent, width=config.width, layers=config.layers, backprop_steps=config.backprop_steps)
    agent = Pinned(agent) if config.jumps == "most" and hasattr(agent, "backprop_steps") else agent
    dataset = made_up_dataset(1000, 28, 5)
    state = loop.init(agent, dataset, tuple(range(config.seeds)), batch_size=config.batch_size)
    if config.losses == "held-out":
        batches = validation_batches(dataset, agent.window, batch_size=config.batch_size)
        trace = partial(run_validation.trace, batch_size=config.batch_size)
        arguments = (agent, state, batches)
    else:
        settings: Any = {"batch_size": config.batch_size, "log_interval": 1000, "seed_mapping": "vmap"}
        trace = partial(loop.run_chunk.trace, **settings, platform="cuda")
        arguments = (agent, state, dataset, np.int32(1))
    sharding = jax.sharding.SingleDeviceSharding(target())
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), jax.tree.map(jnp.asarray, arguments)
    )
    with jax.default_matmul_precision(config.matmul_precision):
        lowered = trace(*shapes).lower(lowering_platforms=("cuda",))
    before = _processor_seconds()
    program = lowered.compile()
    seconds = _processor_seconds() - before
    text = program.as_text()
    assert text is not None
    return text, seconds


def _processor_seconds() -> float:
    """The processor time of all threads of this process, and of the assemblers that XLA may have started."""
    return sum(os.times()[:4])


def target() -> Any:
    """An H100 that exists only for the compiler.

    Raises a `ValueError` if JAX's CUDA plugin is not installed.
    """
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc("", "cuda", topology="1x1x1", target_config=H100)
    except (NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f"JAX cannot compile for CUDA here ({str(error).splitlines()[0]}); install its plugin: python -m pip "
            f"install --no-deps jax-cuda12-plugin=={jax.__version__} jax-cuda12-pjrt=={jax.__version__} "
            "nvidia-cuda-nvcc-cu12."
        ) from error
    return found.devices[0]


def kernels_of_update(program: str) -> list[Kernel]:
    """The kernels in the body of the loop over updates: that innermost loop with the most matrix products.

    **Arguments:** `program`, the text of a compiled and scheduled XLA module. Raises a `ValueError` if it has no loop.
    """
    computations, lines = _computations(program), _source_lines(program)
    bodies = re.findall(r" while\(.*?body=%([\w.-]+)", program)
    found = [list(_kernels(body, computations, lines)) for body in bodies]
    innermost = [kernels for kernels in found if not any(kernel.kind == "while" for kernel in kernels)]
    if not innermost:
        raise ValueError("The program has no loop; give the text of training's compiled chunk.")
    return max(innermost, key=lambda kernels: sum(kernel.share for kernel in kernels if kernel.kind == "product"))


def _kernels(
    name: str, computations: dict[str, list[str]], lines: dict[int, str], share: float = 1.0
) -> Iterator[Kernel]:
    """The kernels that a computation launches, with those of the computations that it calls and of its branches."""
    for instruction in computations[name]:
        match = re.match(r"(?:ROOT )?%[\w.-]+ = (?:\(.*?\)|\S+) ([\w-]+)\(", instruction)
        if match is None or (operation := match[1]) in _NO_KERNEL:
            continue
        if operation == "call":
            called = re.search(r"to_apply=%([\w.-]+)", instruction)
            assert called is not None
            yield from _kernels(called[1], computations, lines, share)
            continue
        if operation == "conditional":
            # By an index, or by a predicate.
            branches = re.search(
                r"branch_computations=\{(.*?)\}|true_computation=.*?false_computation=\S+", instruction
            )
            assert branches is not None
            names = re.findall(r"%([\w.-]+)", branches[0])
            for branch in names:
                yield from _kernels(branch, computations, lines, share / len(names))
        frame = re.search(r"stack_frame_id=(\d+)", instruction)
        yield Kernel(_kind(operation, instruction), lines[int(frame[1])] if frame else "unknown", share)


def _kind(operation: str, instruction: str) -> str:
    if operation == "fusion":
        kind = re.search(r"kind=k(\w+)", instruction)
        assert kind is not None
        return "product" if "gemm" in instruction.split(" = ")[0] else f"fusion ({kind[1].lower()})"
    if operation == "custom-call":
        called = re.search(r'custom_call_target="([^"]+)"', instruction)
        assert called is not None
        return "product" if "cublas" in called[1] else called[1]
    return operation


def _computations(program: str) -> dict[str, list[str]]:
    """The instructions of each computation of a module, by its name."""
    found = re.findall(r"^(?:ENTRY )?%([\w.-]+) \(.*?\{\n(.*?)^\}", program, re.MULTILINE | re.DOTALL)
    return {name: [line.strip() for line in body.splitlines()] for name, body in found}


def _source_lines(program: str) -> dict[int, str]:
    """By the number of a stack frame, the innermost line of this package's source among its callers."""
    files = {number: row.split('"')[1] for number, row in _table(program, "FileNames").items()}
    places: dict[int, str] = {}
    for number, row in _table(program, "FileLocations").items():
        place = _numbers(row)
        places[number] = f"{files[place['file_name_id']].split('/src/')[-1]}:{place['line']}"
    frames = {number: _numbers(row) for number, row in _table(program, "StackFrames").items()}
    return {number: _innermost(number, frames, places) for number in frames}


def _innermost(number: int, frames: dict[int, dict[str, int]], places: dict[int, str]) -> str:
    """The first line of the package's source on the way from a stack frame to its outermost caller."""
    seen = set[int]()
    # The outermost frame has no parent, or is its own.
    while number and number not in seen:
        seen.add(number)
        place = places[frames[number]["file_location_id"]]
        if place.startswith("sorl/"):
            return place
        number = frames[number].get("parent_frame_id", 0)
    return "unknown"


def _numbers(row: str) -> dict[str, int]:
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", row)}


def _table(program: str, name: str) -> dict[int, str]:
    """The rows of one of a module's tables of source positions, by their numbers."""
    match = re.search(rf"^{name}\n(.*?)\n\n", program, re.MULTILINE | re.DOTALL)
    rows = match[1].splitlines() if match else []
    return {int(row.split()[0]): row.split(maxsplit=1)[1] for row in rows}


def show(found: dict[str, Any], before: dict[str, Any], lines: int, what: str = "an update") -> None:
    """Prints the counts by kind and by source line, with earlier ones beside them."""
    total, seconds = (f" (before: {before[key]})" if key in before else "" for key in ("kernels", "processor_seconds"))
    print(
        f"{found['kernels']} kernels {what}{total}, compiled for an H100 by jax {found['jax']} in "
        f"{found['processor_seconds']} s of processor time{seconds}"
    )
    for title, key in (("kind", "by_kind"), ("line", "by_line")):
        print(f"\n| {title} | kernels |" + (" before |" if before else "") + "\n|---|---|" + ("---|" if before else ""))
        names = list(found[key]) + [name for name in before.get(key, {}) if name not in found[key]]
        for name in names[:lines]:
            beside = f" {before[key].get(name, 0)} |" if before else ""
            print(f"| {name} | {found[key].get(name, 0)} |{beside}")


def command() -> None:
    """Runs the command line."""
    # The compiler needs no CUDA libraries, and the arguments' shapes come from the CPU.
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    os.environ["JAX_PLATFORMS"] = "cpu"
    main(command_line.parse(Config, prog="python benchmarks/kernels.py"))
