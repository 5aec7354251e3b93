"""What every layer stands on: settings, typed errors, ids, the database thread pool, the Redis client."""
