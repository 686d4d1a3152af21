"""Where the console script begins: it imports the rest, which takes a moment."""

from __future__ import annotations

import signal


def main() -> None:
    """Run `lamassu`. Half imported there is nothing to end in order: Ctrl-C just ends it."""
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if handled:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from lamassu.cli import main as program

    if handled:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    program.main()


if __name__ == "__main__":
    main()
