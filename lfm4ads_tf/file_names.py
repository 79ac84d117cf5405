"""Names of the data as names of files and folders, of exported models and parts of their URLs."""

from __future__ import annotations

import hashlib
import re

_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._@+")
_MARK = "~"
_EMPTY = _MARK
_LONGEST = 160  # a file system takes 255 bytes; `ranker_` and names of staged files stand around it
_DIGEST = 32  # hexadecimal digits


def file_name(text: str) -> str:
    """A text as the name of a file or folder; no two texts have the same one.

    Letters and digits of ASCII and `-._@+` stand for themselves; every other byte of the text's
    UTF-8, and a dot at its beginning, is written `~HH` (two hexadecimal digits): `home/feed` ->
    `home~2Ffeed`, `..` -> `~2E.`. These characters need no quoting in a URL, a shell or a
    protocol message. The empty text is `~`. Of a name that would be longer than 160 characters the
    end is replaced by `~~` and a digest of the text.
    """
    parts = []
    for place, character in enumerate(text):
        if character in _PLAIN and not (character == "." and place == 0):
            parts.append(character)
        else:
            parts += [f"{_MARK}{b:02X}" for b in character.encode("utf-8", "surrogatepass")]
    name = "".join(parts) or _EMPTY
    if len(name) <= _LONGEST:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    kept = name[: _LONGEST - _DIGEST - 2 * len(_MARK)]
    return re.sub(f"{_MARK}.?$", "", kept) + 2 * _MARK + digest


def original_text(name: str) -> str:
    """The text whose `file_name` a name is.

    Raises:
        ValueError: It is none, or of a text whose end a digest stands for.
    """
    if name == _EMPTY:
        return ""
    escaped = re.sub(
        f"{_MARK}([0-9A-F]{{2}})|(.)",
        lambda m: chr(int(m[1], 16)) if m[1] else m[2],
        name,
        flags=re.DOTALL,
    )
    try:
        text = escaped.encode("latin-1").decode("utf-8", "surrogatepass")
    except UnicodeError as error:
        raise ValueError(f"{name!r} is the name of no text") from error
    if file_name(text) != name:
        raise ValueError(f"{name!r} is the name of no text")
    return text
