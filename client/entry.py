"""Where `saltline` begins: Ctrl-C while it is imported ends it without a traceback."""

import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """The program."""
    # Under nohup or in the background of a script it may be ignored: that stays.
    may_interrupt = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if may_interrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from saltline.client.cli import main as program

    try:
        if may_interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        program()
    except KeyboardInterrupt:  # before the program listens for it, or when it is done
        sys.exit(128 + signal.SIGINT)
    finally:
        if may_interrupt:  # the interpreter's end has nobody who would catch it
            signal.signal(signal.SIGINT, signal.SIG_DFL)
