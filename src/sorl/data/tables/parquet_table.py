"""Parquet files as a table: columns of numbers, or of lists that all have the same length."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Shaped

from sorl.system.files import refuse_special


BATCH_ROWS = 16384
BUFFER_BYTES = 1 << 20


class ParquetTable:
    """The columns of parquet files that continue each other."""

    def __init__(self, path: Path, files: Sequence[Path]):
        """**Arguments:** `path`, the name of the whole in messages; `files`, at least one, in order."""
        self.path, self.files = path, tuple(files)
        with _opened(self.files[0]) as file:
            self.columns = list(file.schema_arrow.names)
        twice = [name for name in self.columns if self.columns.count(name) > 1]
        if twice:
            raise ValueError(f"{path} has two columns named {twice[0]!r}; give each another name.")
        self.rows = 0
        for one in self.files:
            with _opened(one) as file:
                self.rows += file.metadata.num_rows

    def shapes(self, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """The shape of each named column; its size is that of the first rows."""
        first = next(self.blocks(names), None)
        if first is None:
            raise ValueError(f"{self.path} holds no row; give data with at least one.")
        return {name: (self.rows, *values.shape[1:]) for name, values in first.items()}

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, Shaped[np.ndarray, "rows ..."]]]:
        """Consecutive rows of the named columns; raises a `ValueError` for empty cells and lists of other lengths."""
        first, before = 0, {}
        for path in self.files:
            with _opened(path) as file:
                _refuse_missing(path, names, file.schema_arrow.names)
                for batch in _batches(path, file, names):
                    found = {
                        name: _numbers(path, name, batch.column(place), first)
                        for place, name in enumerate(batch.schema.names)
                    }
                    for name, values in found.items():
                        if before.setdefault(name, values.shape[1:]) != values.shape[1:]:
                            _refuse_sizes(path, name, values.shape[1:], first, before[name])
                    yield found
                    first += batch.num_rows


def _opened(path: Path) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    refuse_special(path, "parquet file")
    try:
        # Buffered, so that a row group of any size needs little memory.
        return parquet.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as parquet ({_reason(error)}); give an undamaged file.") from error


def _batches(path: Path, file: Any, names: Sequence[str]) -> Iterator[Any]:
    import pyarrow as pa

    try:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(names), use_threads=False):
            if batch.num_rows:
                yield batch
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged ({_reason(error)}); give an undamaged file.") from error


def _refuse_missing(path: Path, names: Sequence[str], found: Sequence[str]) -> None:
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"{path} lacks the column {missing[0]!r}; it has {', '.join(found)}.")


def _numbers(path: Path, name: str, column: Any, first: int) -> Shaped[np.ndarray, "rows ..."]:
    """One column of a batch as an array of real numbers, with the lists' lengths as further axes."""
    import pyarrow as pa

    shape: list[int] = [len(column)]
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    while (
        pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type)
    ):
        _refuse_empty(path, name, column, first, shape[0])
        sizes = column.value_lengths().to_numpy(zero_copy_only=False) if len(column) else np.zeros(0, np.int64)
        if len(sizes) and (sizes != sizes[0]).any():
            row = int(np.argmax(sizes != sizes[0])) * shape[0] // len(sizes)
            other = int(sizes[sizes != sizes[0]][0])
            _refuse_sizes(path, name, (other,), first + row, (int(sizes[0]),))
        shape.append(int(sizes[0]) if len(sizes) else 0)
        column = column.flatten()
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise ValueError(f"{name} of {path} holds {kind}; give real numbers.")
    _refuse_empty(path, name, column, first, shape[0])
    return column.to_numpy(zero_copy_only=False).reshape(shape)


def _refuse_sizes(path: Path, name: str, found: tuple[int, ...], row: int, before: tuple[int, ...]) -> NoReturn:
    now, earlier = (" x ".join(map(str, size)) or "1" for size in (found, before))
    raise ValueError(
        f"{name} of {path} has {now} numbers in row {row}, but {earlier} before; give every row the same size."
    )


def _refuse_empty(path: Path, name: str, column: Any, first: int, rows: int) -> None:
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False))) * rows // len(column)
        raise ValueError(f"{name} of {path} is empty in row {first + row}; repair or drop that episode.")


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip(" .")[:200]
