"""Where documents come from. A source turns one file into pages, documents and rejects, and never raises on bad input."""
