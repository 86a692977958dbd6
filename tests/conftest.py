import gc
import os


# Before jax is imported: tests run on the CPU, and every product in full float32.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")

import jax  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def _programs_of_one_file(request):
    """How the programs of a file are compiled, and their end.

    Most of the suite's time would go into LLVM's optimisations, which decide nothing but last bits: a file that
    compares bits with those of another process needs them. Each program takes hundreds of memory maps, of which Linux
    gives a process 65,530 before it crashes.
    """
    as_shipped = request.node.get_closest_marker("compiled_as_shipped") is not None
    jax.config.update("jax_disable_most_optimizations", not as_shipped)
    yield
    jax.clear_caches()
    gc.collect()
