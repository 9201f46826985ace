"""Recipes that ship with the project, as YAML files in this folder."""
