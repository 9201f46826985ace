"""Compiled kernels are kept, wherever the package lies and whoever runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


_OF_PARTS = {
    "constants.py": "import numpy as np\nSTEP = np.int64(3)\nTABLE = np.array([1, 2])\nFLAG = 1\n",
    "deep.py": "from pipeline.compiled import part\n\n@part\ndef twice(x):\n    return 2 * x\n",
    "parts.py": """
from pipeline.compiled import part
import constants
from constants import STEP, TABLE
from deep import twice

@part
def weighed(x):
    return twice(x) + STEP + TABLE[0] + constants.FLAG
""",
    "kernel.py": _KERNEL.replace("import compiled", "import part, compiled")
    .replace("from pipeline", "from parts import weighed\nfrom pipeline", 1)
    .replace("s += v", "s += weighed(v)"),
}


@pytest.mark.parametrize(
    ("file", "before", "after", "total"),
    [
        ("deep.py", "2 * x", "4 * x", 65),
        ("parts.py", "+ STEP", "- STEP", 15),
        ("constants.py", "int64(3)", "int64(5)", 55),
        ("constants.py", "[1, 2]", "[2, 2]", 50),
        ("constants.py", "FLAG = 1", "FLAG = 2", 50),
    ],
)
def test_a_kernel_is_compiled_again_when_what_it_is_made_of_changes(
    tmp_path: Path, file: str, before: str, after: str, total: int
) -> None:
    """Parts of other modules, parts of parts, and constants: Numba itself looks at the kernel's own file alone."""
    for name, content in _OF_PARTS.items():
        (tmp_path / name).write_text(content)
    assert run(tmp_path) == ["45", "0"]
    assert run(tmp_path) == ["45", "1"]
    path = tmp_path / file
    path.write_text(path.read_text().replace(before, after))
    assert run(tmp_path) == [str(total), "0"]
