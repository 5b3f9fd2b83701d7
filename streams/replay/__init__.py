"""The replay buffer in Redis: exact insert, declared draws, lineage, retention and erasure."""
