"""What a document is like: signals and rule sets."""
