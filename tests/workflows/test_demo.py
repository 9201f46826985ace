"""The demo's recipe is the shipped one: what a person reads in it is what ran."""

from __future__ import annotations

from pathlib import Path

from workflows.demo import demo_recipe
from workflows.recipe import load_recipe

SHIPPED = Path(__file__).parents[2] / "recipes" / "demo.yaml"


def test_in_its_default_place_the_demo_leaves_what_the_shipped_recipe_asks_for() -> None:
    """So that `menagerie status recipes/demo.yaml` finds the demo done, and `build` has nothing to do."""
    assert demo_recipe(Path("demo"), "ray") == load_recipe(SHIPPED, ["engine.kind=ray"])
