"""The connection to a PostgreSQL server, which sinks and journals share."""
