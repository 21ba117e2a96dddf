"""`python -m antflow`, the same as `antflow`."""

from antflow.cli import main

if __name__ == "__main__":
    main()
