"""Generated files, as they are and as OGBench loads them."""

from typing import Any

import numpy as np
import ogbench

from sorl.environments.simulators import quiet


def arrays_of(path):
    with np.load(path) as file:
        return {key: file[key] for key in file}


def as_ogbench_loads(name, directory) -> Any:
    with quiet():
        loaded: Any = ogbench.make_env_and_datasets(name, dataset_dir=str(directory))
    return loaded[1:]
