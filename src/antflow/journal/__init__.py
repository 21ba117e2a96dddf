"""The journal of a run: what is done is kept in a file, so that a run can go on after a crash."""
