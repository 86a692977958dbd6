"""The compilation cache belongs to one user, and replaces damaged entries."""

import os
import re
import warnings

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from sorl.system import compilation


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A separate cache; the suite's cache is restored afterwards."""
    before = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    compilation_cache.reset_cache()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        yield tmp_path / "cache"
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


def _start():
    """Acts like a new process: no compiled programs, and the cache enabled."""
    jax.clear_caches()
    compilation.enable_cache()
    return float(jax.jit(lambda x: jnp.sin(x) + 3)(0.0))


def test_damaged_entries_are_replaced(cache, capsys):
    assert _start() == 3
    entries = {path: path.read_bytes() for path in cache.glob("*-cache")}
    assert entries
    for path, content in entries.items():
        path.write_bytes(content[: len(content) // 2])
    assert _start() == 3
    said = capsys.readouterr().err
    assert "A damaged compiled program was removed from" in said and "Error reading" not in said
    assert all(len(path.read_bytes()) > len(content) // 2 for path, content in entries.items() if path.exists())
    assert any(path.exists() for path in entries)
    assert _start() == 3
    assert capsys.readouterr().err == ""


def test_other_warnings_are_shown_as_before(cache, monkeypatch):
    shown = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_, **__: shown.append(str(message)))
    compilation.enable_cache()
    warnings.warn("the sky is low", stacklevel=1)
    assert shown == ["the sky is low"]


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_directory_that_others_may_write_becomes_private(cache, mode, capsys):
    cache.mkdir()
    cache.chmod(mode)
    compilation.enable_cache()
    assert cache.stat().st_mode & 0o777 == 0o700
    assert capsys.readouterr().err == f"{cache} was writable by other users; now only you can access it.\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_directory_of_another_user_is_refused_and_so_is_a_link_of_theirs(cache, tmp_path):
    (tmp_path / "mine").mkdir(mode=0o700)
    cache.symlink_to(tmp_path / "mine")
    os.lchown(cache, 12345, 12345)
    with pytest.raises(PermissionError, match="belongs to another user; set JAX_COMPILATION_CACHE_DIR"):
        compilation.enable_cache()
    cache.unlink()
    cache.mkdir()
    os.chown(cache, 12345, 12345)
    with pytest.raises(PermissionError, match=re.escape(f"{cache} belongs to another user")):
        compilation.enable_cache()


def test_without_a_place_for_it_there_is_no_cache_and_one_line_says_so(monkeypatch, capsys):
    def refuse(directory, remedy):
        raise PermissionError(13, "Permission denied", str(directory))

    monkeypatch.setattr(compilation, "make_private", refuse)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    assert compilation.enable_cache() is None
    assert capsys.readouterr().err.startswith("No compiled program is kept: ")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "chosen")
    with pytest.raises(PermissionError):
        compilation.enable_cache()
