"""The ``shardinit`` command from its first moment to its exit code; the commands are in ``commands.py``.

Whatever happens to standard output, or by Ctrl-C, ends with one line and a code of ``shardinit.launch.exits``. Before
the signals are handled nothing is imported that takes time.
"""

import os
import signal
import sys
import threading
from typing import NoReturn

USAGE, PREEMPTED, LOST_OUTPUT = 2, 13, 4  # as in shardinit.launch.exits, which takes time to import
ASKED = (signal.SIGINT, signal.SIGTERM)
CLEANING_SECONDS = 2.0
EXTRA = frozenset({"typer", "jinja2", "google", "jax_smi"})  # packages of the extra ``cli``

_asked: list[int] = []


class Interrupted(BaseException):
    """SIGINT or SIGTERM, raised in the main thread."""


def main() -> None:
    """Entry point of the ``shardinit`` command."""
    _open_closed_streams()
    _handle_signals()
    try:
        from shardinit.cli import output

        output.guard()
        code = _run()
        if (error := output.lost()) is not None:
            output.warn(f"cannot write standard output: {error.strerror}")
            code = code or LOST_OUTPUT
    except BaseException:  # C code makes an ImportError of Interrupted
        if _asked:
            _leave(_asked[0])
        raise
    if _asked:
        _leave(_asked[0])
    signal.set_wakeup_fd(-1)
    sys.exit(code)


def _run() -> int:
    try:
        from shardinit.cli.commands import app

        app(prog_name="shardinit")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        print(f"shardinit: {error.name} is not installed. Run: pip install 'shardinit[cli]'", file=sys.stderr)
        return USAGE
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
            return 1
        return error.code or 0
    return 0


def _open_closed_streams() -> None:
    """Keep the numbers of standard streams that are closed from the next file that anything opens."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _handle_signals() -> None:
    """End by ``Interrupted``; at once where the main thread is inside of C code or the exception was swallowed."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for number in ASKED:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup, or & in a script
            signal.signal(number, _interrupt)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    sys.unraisablehook = _quiet
    threading.Thread(target=_end_late, args=(reading,), daemon=True, name="shardinit-signals").start()


def _interrupt(number: int, frame: object) -> NoReturn:
    signal.signal(number, _ignore)
    _asked.append(number)
    raise Interrupted(number)


def _ignore(number: int, frame: object) -> None:
    """Let the first one be enough."""


def _quiet(unraisable: "sys.UnraisableHookArgs") -> None:
    """Show what Python cannot raise, but for ``Interrupted`` inside of a callback of C code: there it ends here."""
    if isinstance(unraisable.exc_value, Interrupted):
        _leave(_asked[0])
    sys.__unraisablehook__(unraisable)


def _end_late(reading: int) -> None:
    while found := os.read(reading, 1):
        number = found[0]
        if _is_ours(number):
            threading.Event().wait(CLEANING_SECONDS)
            if _is_ours(number):
                _leave(number)


def _is_ours(number: int) -> bool:
    """Whether no supervisor, or code of the user, handles this signal itself."""
    return number in ASKED and signal.getsignal(number) in (_interrupt, _ignore)


def _leave(number: int) -> NoReturn:
    """Say so and go, past Python's end, in which XLA's threads may abort."""
    text = f"shardinit: asked to end by {signal.Signals(number).name}\n"
    try:
        os.write(2, text.encode())
    finally:
        os._exit(PREEMPTED)


if __name__ == "__main__":
    main()
