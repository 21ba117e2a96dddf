"""Events to elsewhere: one file for each place, which alone knows the library it needs."""
