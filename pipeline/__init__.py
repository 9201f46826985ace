"""Documents in, documents out: sources, extraction, deduplication, selection, mixtures, token shards."""
