"""Text of others as plain text, without control characters, terminal escapes or marks of direction."""

import unicodedata

MAX_MESSAGE = 300  # characters of a line for the user
_TAIL = 90  # of them, from the end of the text


def plain(text: str) -> str:
    r"""Replace what is not printable: line breaks and tabs by a space, all else by its escape, as \x1b."""
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(sign: str) -> str:
    if sign.isprintable() or unicodedata.category(sign) == "Zs":
        return sign
    return " " if sign in "\t\n\r\v\f\u2028\u2029" else sign.encode("unicode_escape").decode()


def message(text: str, limit: int = MAX_MESSAGE) -> str:
    """One line of plain text for the user; the middle of a longer one is left out."""
    line = " ".join(plain(text).split())
    return line if len(line) <= limit else f"{line[: limit - _TAIL - 5]} ... {line[-_TAIL:]}"
