"""The executor without Ray: everything in this process, one task after the other. For debuggers, tests and small files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
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
                for number, file in enumerate(files):
                    table = pq.read_table(file, filesystem=self._storage.filesystem).replace_schema_metadata(None)
                    for value in pc.unique(table[key]).to_pylist():
                        if value not in sinks:
                            path = Path(folder) / f"{len(sinks):06d}.arrow"
                            sinks[value] = stack.enter_context(pa.ipc.new_stream(str(path), table.schema))
                        sinks[value].write_table(table.filter(pc.equal(table[key], pa.scalar(value, table.schema.field(key).type))))
                    del table, number
            for path in sorted(Path(folder).iterdir()):
                with pa.ipc.open_stream(str(path)) as stream:
                    yield function(stream.read_all())
