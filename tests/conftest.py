"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data (real pages, golden outputs): `$MENAGERIE_SHARED/data`, else `../shared/data`."""
    root = Path(os.environ.get("MENAGERIE_SHARED") or Path(__file__).parents[2] / "shared")
    if not (root / "data").is_dir():
        pytest.skip(f"reference data is not at {root}/data; set MENAGERIE_SHARED")
    return root / "data"
