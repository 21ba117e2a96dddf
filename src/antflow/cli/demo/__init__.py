"""`antflow demo`: the command, and the pipeline that it runs."""
