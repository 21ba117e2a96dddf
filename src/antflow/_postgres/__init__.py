"""What talks to a PostgreSQL server: sinks and journals share it."""
