"""Compiled kernels are kept, wherever the package lies and whoever runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

_KERNEL = """
import numpy as np
from numba import types
from pipeline.compiled import compiled, read_only

@compiled(read_only(types.int64))
def total(values):
    s = 0
    for v in values:
        s += v
    return s
"""
_RUN = """
import kernel, numpy as np
values = np.arange(5); values.flags.writeable = False
print(kernel.total(values), sum(kernel.total.stats.cache_hits.values()))
"""


def run(folder: Path, **environment: str) -> list[str]:
    """What a process that imports the kernel prints: its result, and how many kernels came from the cache."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    paths = os.pathsep.join([str(folder), str(Path(__file__).parents[2])])
    told = subprocess.run(
        [sys.executable, "-c", _RUN], env={**inherited, "PYTHONPATH": paths, **environment}, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    return told.stdout.split()


def test_kernels_are_kept_where_nothing_can_be_written_but_the_temporary_folder(tmp_path: Path) -> None:
    """Files in the place of `__pycache__` and of the home's cache stand for a read-only installation: root may write all."""
    package, home, temporary = tmp_path / "package", tmp_path / "home", tmp_path / "temporary"
    for folder in (package, home, temporary):
        folder.mkdir()
    (package / "kernel.py").write_text(_KERNEL)
    (package / "__pycache__").touch()
    (home / ".cache").touch()
    for hits in ("0", "1"):
        assert run(package, HOME=str(home), TMPDIR=str(temporary)) == ["10", hits]
    kept = next(temporary.glob("menagerie-numba-*"))
    assert kept.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(package)


def test_kernels_are_kept_beside_the_module(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(_KERNEL)
    assert [run(tmp_path)[1] for _ in range(2)] == ["0", "1"]
    assert list((tmp_path / "__pycache__").glob("kernel.total-*.nbi"))
