"""PostgreSQL, Valkey and a small model from wheels, so that a bare machine needs nothing else."""
