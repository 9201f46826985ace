"""Recipes, the engine, the command line, reports."""
