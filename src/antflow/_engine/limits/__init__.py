"""The limits on a stage's tries, and on single calls of a task."""
