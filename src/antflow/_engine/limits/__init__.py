"""The limits around a stage's tries, and around single calls of a task."""
