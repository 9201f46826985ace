"""The signals, one module per family."""
