"""Child processes: the parent's side, the child's side, and the runner that uses them."""
