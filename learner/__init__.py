"""Training samples to adapter versions: batches, updates, evaluation, gate, registry."""
