import gc
import os
import pathlib
import signal
import threading


# Before jax is imported: tests run on the CPU, and every product in full float32.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")

import equinox  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
from jax._src import compiler, lru_cache  # noqa: E402  # public jax has no compiler options for all programs


IN_HASTE = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
"""With these options XLA compiles a small program in two fifths of the CPU time."""

# A shell that starts a command in the background may let it ignore Ctrl-C, and so all processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Traces are many small objects that live long: Python's own thresholds would look through all of them again and again.
gc.set_threshold(50_000, 20, 50)


def pytest_addoption(parser):
    parser.addoption(
        "--agent-module", action="append", default=[], help="a module or file that registers agents, for the contract"
    )


def pytest_collection(session):
    """Registers agents before tests are parametrised over them."""
    if names := session.config.getoption("--agent-module"):
        from sorl.agents.modules import import_modules  # not above: jaxtyping's hook comes before the package

        import_modules(names)


def pytest_collection_modifyitems(items):
    """Starts with the test that takes a minute alone; the order of the others stays."""
    items.sort(key=lambda item: item.path.name != "test_types.py")


@pytest.fixture(scope="session", autouse=True)
def _programs_of_all_files(tmp_path_factory):
    """Keeps compiled programs for the files that come later, the other worker and the processes that tests start.

    Never the user's own. The workers share a directory, and each has one more for the processes that it starts.
    """
    from sorl.system.compilation import enable_cache  # not above: jaxtyping's hook comes before the package

    own = tmp_path_factory.mktemp("programs")
    shared = own if "PYTEST_XDIST_WORKER" not in os.environ else own.parents[1] / "programs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lru_cache.LRUCache, "put", _put_whole)
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(shared))
        enable_cache()
        jax.jit(lambda: 0.0)()  # the first program decides the directory of this process
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(own))
        yield


def _put_whole(cache: lru_cache.LRUCache, key: str, value: bytes) -> None:
    """JAX writes an entry in place, and the other worker could read half of it."""
    entry = pathlib.Path(cache.path) / f"{key}-cache"
    if not entry.exists():
        part = entry.with_name(f"{key}-{os.getpid()}-{threading.get_ident()}")
        part.write_bytes(value)
        part.replace(entry)


@pytest.fixture(scope="session")
def _haste(_programs_of_all_files) -> dict[str, bool | int]:
    """The options for a quick compilation, or none where this version of XLA does not know them."""
    try:
        # Afterwards this process has read XLA_FLAGS, which is then set for its children alone.
        jax.jit(lambda: 0.0).lower().compile(compiler_options=dict(IN_HASTE))
    except jax.errors.JaxRuntimeError:
        return {}
    return IN_HASTE


@pytest.fixture(scope="module", autouse=True)
def _programs_of_one_file(request, _haste):
    """How the programs of a file and of the processes it starts are compiled, and when they end.

    Most of the suite's time would go into XLA's optimisations, which decide nothing but last bits. A file that tests
    what users are promised about bits is compiled as for them. Programs stay in memory until there are too many: each
    takes hundreds of memory maps, of which Linux gives a process 65,530 before it crashes.
    """
    in_haste = request.node.get_closest_marker("compiled_as_shipped") is None
    if in_haste != jax.config.read("jax_disable_most_optimizations") or _is_full():
        jax.clear_caches()
        gc.collect()
    jax.config.update("jax_disable_most_optimizations", in_haste)
    with pytest.MonkeyPatch.context() as patch:
        if in_haste:
            flags = [f"--{name}={str(value).lower()}" for name, value in _haste.items()]
            patch.setenv("XLA_FLAGS", " ".join([os.environ.get("XLA_FLAGS", ""), *flags]))
            patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
            patch.setattr(compiler, "get_compile_options", _with(_haste, compiler.get_compile_options))
        yield


def _with(haste, get_compile_options):
    """`get_compile_options` with the options of `haste` beside those of the program."""

    def get(*arguments, env_options_overrides=None, **options):
        return get_compile_options(*arguments, env_options_overrides=haste | (env_options_overrides or {}), **options)

    return get


@pytest.fixture
def x64():
    """Double precision in a test; a file asks for it by `usefixtures`."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["jitted", "eager"])
def maybe_jit(request):
    """Compiles a function, or leaves it as it is."""
    return equinox.filter_jit if request.param == "jitted" else lambda function: function


@pytest.fixture
def axes():
    """Axes of matplotlib to draw on."""
    from sorl.system.pictures import pyplot_without_screen  # not above: jaxtyping's hook comes before the package

    pyplot = pyplot_without_screen()
    figure, axes = pyplot.subplots()
    yield axes
    pyplot.close(figure)


def _is_full() -> bool:
    """Whether this process has 20,000 memory maps or 3 GB in memory; never, where there is no /proc."""
    maps, pages = pathlib.Path("/proc/self/maps"), pathlib.Path("/proc/self/statm")
    if not maps.exists():
        return False
    resident = int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return len(maps.read_bytes().splitlines()) > 20_000 or resident > 3e9
