"""The executor without Ray: everything in this process, one task after the other. For debuggers, tests and small files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.stage import Resources
from pipeline.storage import Storage

T = TypeVar("T")
R = TypeVar("R")


class InlineExecutor:
    """See `pipeline.stage.Executor`."""

    def __init__(self, corpus: Storage) -> None:
        self._storage = corpus

    def map(self, function: Callable[[T], R], items: Sequence[T], resources: Resources = Resources()) -> Iterator[R]:
        return map(function, items)

    def map_groups(self, files: Sequence[str], key: str, function: Callable[[pa.Table], pa.Table]) -> Iterator[pa.Table]:
        """A shuffle through temporary files, one per key, so that memory holds one input file and one group at a time."""
        with tempfile.TemporaryDirectory(prefix="menagerie-shuffle-") as folder:
            with ExitStack() as stack:
                sinks: dict[object, pa.ipc.RecordBatchStreamWriter] = {}
                for file in files:
                    table = pq.read_table(file, filesystem=self._storage.filesystem).replace_schema_metadata(None)
                    rows = pl.Series(table[key]).to_frame("key").with_row_index("row")
                    for (value,), chosen in rows.partition_by("key", as_dict=True).items():
                        if value not in sinks:
                            path = Path(folder) / f"{len(sinks):06d}.arrow"
                            sinks[value] = stack.enter_context(pa.ipc.new_stream(str(path), table.schema))
                        sinks[value].write_table(table.take(chosen["row"].to_arrow()))
            for path in sorted(Path(folder).iterdir()):
                with pa.ipc.open_stream(str(path)) as stream:
                    yield function(stream.read_all())
