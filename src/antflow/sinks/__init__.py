"""Events to other systems: one file for each, the only one to know the library it needs."""
