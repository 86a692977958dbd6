"""The data source of npz, parquet and CSV files whose columns a mapping file names."""

import dataclasses
import pathlib
from typing import ClassVar, final

from sorl.data.own_logs.record import is_converted
from sorl.data.recorded.episodes import Recording
from sorl.data.recorded.rewards import RewardRule
from sorl.data.recorded.source import RecordedSource
from sorl.data.tables.csv_table import CsvTable
from sorl.data.tables.mapping import mapping_path, read_mapping, refuse_repeated
from sorl.data.tables.npz_table import NpzTable
from sorl.data.tables.parquet_table import ParquetTable
from sorl.data.tables.recording import recording
from sorl.system.files import expanded


@final
@dataclasses.dataclass(frozen=True)
class TableFile(RecordedSource):
    """An npz, parquet (needs `sorl[lerobot]`) or CSV file with named columns and a mapping file."""

    columns: pathlib.Path | None = None
    """TOML file that says what each column is; default: `{name}.toml` beside the file."""
    FORMS: ClassVar = {".npz": "npz", ".parquet": "parquet", ".csv": "CSV"}

    @classmethod
    def reads(cls, path: pathlib.Path) -> bool:
        """Whether the path is a parquet or CSV file, or an npz file with a mapping file beside it.

        A mapping file beside own logs that `sorl.convert` wrote is that of the table that they were converted from.
        """
        suffix = path.suffix.lower()
        if suffix != ".npz":
            return suffix in cls.FORMS
        return mapping_path(path, None).exists() and not is_converted(path)

    def recording(self) -> Recording:
        """As `RecordedSource.recording`; `observation_keys` take the place of the mapping's observations."""
        path = expanded(self.path, "give its full name")
        suffix = path.suffix.lower()
        if suffix not in self.FORMS:
            raise ValueError(
                f"Columns are for npz, parquet and CSV files, and {path} ends in none of .npz, .parquet and .csv; "
                "leave columns out, or give such a file."
            )
        if not path.exists():
            raise FileNotFoundError(f"There is no file {path}; give the {self.FORMS[suffix]} file of your logs.")
        mapping = read_mapping(mapping_path(path, self.columns))
        if self.observation_keys:
            refuse_repeated("observation-keys", self.observation_keys)
            mapping = dataclasses.replace(mapping, observations=self.observation_keys)
        if suffix == ".npz":
            table = NpzTable(path)
        elif suffix == ".parquet":
            table = ParquetTable(path, [path])
        else:
            table = CsvTable(path)
        found = recording(table, mapping, RewardRule.of(self.reward), f"{self.FORMS[suffix]} table", [path])
        return dataclasses.replace(found, details={**found.details, "columns": mapping.to_json()})
