"""Bulk work in shards, and what does them: threads, processes, the actors of Ray."""
