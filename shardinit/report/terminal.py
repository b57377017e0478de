"""Text for terminals that are not UTF-8: lines and bars drawn in ASCII, other letters as their escapes."""

import codecs
import sys

ON_TERMINALS = "shardinit"  # name of the error handler, for streams
_ASCII = dict(zip("─█▒·×…", "-#=.x~", strict=True))


def for_terminal(text: str) -> str:
    """Text that standard output can print, whatever its encoding."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, ON_TERMINALS).decode(encoding)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_ASCII.get(letter) or ascii(letter)[1:-1] for letter in letters), error.end


codecs.register_error(ON_TERMINALS, _replaced)
