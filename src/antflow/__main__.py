"""`python -m antflow`, the same as `antflow`."""

from antflow.cli import program

if __name__ == "__main__":
    program()
