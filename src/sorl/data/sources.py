"""The sources of data, each a frozen dataclass of its options with `load()`."""

from sorl.data.generation.source import Generated
from sorl.data.ogbench.source import Ogbench
from sorl.data.own_logs.source import Logs


Source = Ogbench | Generated | Logs
"""The sources of training data.

`source.load(normalisation=...)` returns `LoadedData`: a device-resident `Dataset` in the networks' units, a held-out
one or None, the units (`Normalisation`), and the origin of the data (`provenance`).

To add a source, such as another file format, write one file with a frozen dataclass:

- its fields are its options, each with a docstring; a source of the user's own data has `path`, the value of `--data`;
- `load(self, *, normalisation=None) -> LoadedData` reads it. A format of trajectories builds a
  `sorl.data.own_logs.file.Log`, and `sorl.data.own_logs.load.load_log` does the rest: the split by whole trajectories,
  scales, limits, and the summary. Bad input is a `ValueError` of one sentence: what was found, what was expected, what
  to do;
- `reads(path) -> bool`, a class method, says whether `--data path` means this source, by the path's form or suffix.

Then name it in this union and, before `Logs`, in `USER_SOURCES`. On the command line its options are those fields of
`sorl.config.options.DataConfig` that have the same names: an option that no source had before is a new field there.
"""

USER_SOURCES: tuple[type[Logs], ...] = (Logs,)
"""The possible sources for `--data`; the first one whose `reads` accepts the path is used, and the last accepts all."""
