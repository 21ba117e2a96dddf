"""How fast, and how light: `python -m benchmarks` measures it; docs/performance.md explains it."""
