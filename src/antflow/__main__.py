"""`python -m antflow`, the same as `antflow`."""

import signal


def begin() -> None:
    """Be the program `antflow`. Until a command begins, Ctrl-C ends it as if it had no handler."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from antflow.cli import program  # only now: it takes a while

    program()


if __name__ == "__main__":
    begin()
