"""The bytes of a CSV file on their way to the reader of its rows, with every quote checked."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Protocol

import numpy as np

from lfm4ads_tf.data.sources.files import open_bytes
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.text_options import TextOptions

_QUOTE, _BACKSLASH, _LF, _CR = b'"\\\n\r'
_BOM = b"\xef\xbb\xbf"
_BLOCK_BYTES = 1 << 20
_SHOWN_BYTES = 80


class _Bytes(Protocol):
    """What is read from."""

    def read(self, size: int = ..., /) -> bytes: ...


class TextStream(io.RawIOBase):
    r"""Passes bytes on and refuses a quoted cell that swallows what follows it.

    A reader of CSV takes a cell that begins with `"` to go on until the next `"`, over as many
    lines as that takes, so that one quote too many makes rows disappear without a word. Here every
    quoted cell must end before a delimiter or the end of a line: of its own line, unless
    `newlines_in_cells`. With `escape: backslash`, `\"` is passed on as `""` and `\\` as `\`.

    The quotes of a block are checked together. Of a run of them only its parity counts: an odd run
    at the beginning of a cell turns "inside a quoted cell" over, another odd run ends it, an even
    one changes nothing, and the end of a line ends it where cells hold no line breaks. So the state
    before a run is the parity of the turns since the last end.

    Args:
        raw: The content of the file, decompressed.
        path: The file, for messages.
        delimiter: One character.
        text: How the cells are written.
    """

    def __init__(self, raw: _Bytes, path: Path, delimiter: str, text: TextOptions) -> None:
        super().__init__()
        self._raw, self._path, self._text = raw, path, text
        self._ends_cell = np.zeros(256, bool)
        self._ends_cell[[_LF, _CR, *delimiter.encode()[:1]]] = True
        self._ready = b""
        self._held = b""  # what waits for the next block
        self._ended = False
        self._offset = 0  # of the block in the content
        self._previous = _LF
        self._inside = False
        self._opened = 0  # where the open cell begins in the content
        self.lines = 0
        """Lines with at least one character that went by; counted where each of them is a row."""
        self.failure: UserError | None = None
        """What was refused: a reader in another language may not pass the error on."""

    def readable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """See `io.RawIOBase`."""
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes, none at the end.

        Raises:
            UserError: A quoted cell is followed by text, or not closed.
        """
        if size is None or size < 0:
            return self.readall()
        while not self._ready and not self._ended:
            # Together at most `size`: Arrow refuses a block of a row's rest without a line end.
            block = self._raw.read(max(size - len(self._held), 1))
            self._ended = not block
            try:
                self._ready = self._passed(self._held + block if self._held else block)
            except UserError as error:
                self.failure = error
                raise
        found, self._ready = self._ready[:size], self._ready[size:]
        return found

    def _passed(self, block: bytes) -> bytes:
        """A block as the reader gets it."""
        if self._text.quoting == "none":
            return block
        self._held = b""
        if not self._ended and (self._inside or b'"' in block):
            # Whole lines are checked faster; without one, what follows a quote is waited for.
            end = block.rfind(b"\n") + 1 or len(block.rstrip(b'"\\'))
            block, self._held = block[:end], block[end:]
        if not block and not (self._ended and self._inside):
            return block
        data = np.frombuffer(block, np.uint8)
        by_line = not self._text.newlines_in_cells
        ends = data == _LF if by_line else np.zeros(0, bool)
        if by_line and b"\r" in block:
            ends |= data == _CR
        if self._inside or b'"' in block:
            block = self._checked(block, data, np.flatnonzero(ends))
        if by_line and len(data):
            after_end = self._previous in (_LF, _CR) and not ends[0]
            self.lines += int(np.count_nonzero(ends[:-1] > ends[1:])) + int(after_end)
        self._offset += len(data)
        self._previous = int(data[-1]) if len(data) else self._previous
        return block

    def _checked(self, block: bytes, data: np.ndarray, line_ends: np.ndarray) -> bytes:
        """Checks the quotes of a block, and translates its escapes.

        Args:
            block: The bytes.
            data: The same, (bytes,).
            line_ends: Places of the line ends in it; none where cells may hold them.
        """
        slashes = self._slashes(data)
        quotes = np.flatnonzero(data == _QUOTE)
        if len(slashes[0]):
            quotes = quotes[~_follows_odd(slashes, quotes)]
        elif self._plain(data, quotes, line_ends):
            return block
        first = np.ones(len(quotes), bool)
        first[1:] = np.diff(quotes) > 1
        starts = quotes[first]  # (runs,)
        lengths = np.diff(np.append(np.flatnonzero(first), len(quotes)))
        opens, closes = self._neighbours(data, starts, lengths)
        odd = lengths % 2 == 1
        line = np.searchsorted(line_ends, starts)  # in the block
        fresh = np.zeros(len(starts), bool)
        fresh[:1] = line[:1] > 0
        fresh[1:] = np.diff(line) > 0
        if self._inside and (fresh[:1].any() or (not len(starts) and len(line_ends))):
            raise self._unclosed(self._opened)
        fresh[1:] |= (odd & ~opens)[:-1]
        turns = odd & opens
        before = np.cumsum(turns) - turns
        since = np.maximum.accumulate(np.where(fresh, np.arange(len(starts)), 0))
        inside = (before - before[since]) % 2 == 1 if len(starts) else np.zeros(0, bool)
        inside ^= self._inside & (np.cumsum(fresh) == 0)
        after = np.where(odd, turns & ~inside, inside)
        opening = np.flatnonzero(opens & ~inside)
        wrong = np.where(odd, inside, opens & ~inside) & ~closes  # closed, but not at an end
        left = after & np.append(np.diff(line) > 0, line[-1:] < len(line_ends))
        if (wrong | left).any():
            at = int(np.argmax(wrong | left))
            place = self._opener(starts, opening, at)
            if left[at]:
                raise self._unclosed(place)
            raise self._error(place, "is followed by text behind its closing quote")
        if len(slashes[0]):
            block = self._translated(data, slashes, starts, after)
        if len(starts):
            self._inside = bool(after[-1])
            self._opened = self._opener(starts, opening, len(starts) - 1)
        if self._ended and self._inside:
            raise self._unclosed(self._opened)
        return block

    def _plain(self, data: np.ndarray, quotes: np.ndarray, line_ends: np.ndarray) -> bool:
        """Whether quotes only open and close cells in turn, which is seen faster."""
        if self._inside or len(quotes) % 2 or not len(quotes):
            return False
        behind = np.minimum(quotes[1::2] + 1, len(data) - 1)
        closed = self._ends_cell[data[behind]]
        closed[-1] |= quotes[-1] + 1 == len(data)
        opened = self._ends_cell[data[quotes[::2] - 1]]
        opened[0] = self._ends_cell[data[quotes[0] - 1] if quotes[0] else self._previous]
        if not (closed.all() and opened.all()):
            return False
        return bool((np.searchsorted(quotes, line_ends) % 2 == 0).all())

    def _slashes(self, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Runs of backslashes: places and lengths; none where they escape nothing."""
        at = np.flatnonzero(data == _BACKSLASH) if self._text.escape == "backslash" else None
        if at is None or not len(at):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        first = np.append(True, np.diff(at) > 1)
        return at[first], np.diff(np.append(np.flatnonzero(first), len(at)))

    def _neighbours(
        self, data: np.ndarray, starts: np.ndarray, lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whether each run of quotes stands at the beginning of a cell, and at the end of one."""
        before = data[np.maximum(starts - 1, 0)] if len(data) else np.zeros(0, np.uint8)
        opens = self._ends_cell[before]
        at_start = starts == 0
        opens[at_start] = self._ends_cell[self._previous]
        if self._offset == 0 and data[: len(_BOM)].tobytes() == _BOM:
            opens[starts == len(_BOM)] = True
        behind = starts + lengths
        closes = behind >= len(data)
        closes[~closes] = self._ends_cell[data[behind[~closes]]]
        return opens, closes

    def _translated(
        self,
        data: np.ndarray,
        slashes: tuple[np.ndarray, np.ndarray],
        starts: np.ndarray,
        after: np.ndarray,
    ) -> bytes:
        """The block with the escapes inside quoted cells written as doubled quotes."""
        at, lengths = slashes
        run = np.searchsorted(starts, at) - 1  # the quotes before
        known = np.append(after, self._inside)  # -1 is before the first one
        inside = known[run]
        at, lengths = at[inside], lengths[inside]
        out = data.copy()
        last = at + lengths - 1
        quoted = (lengths % 2 == 1) & (last + 1 < len(data))
        quoted[quoted] = data[last[quoted] + 1] == _QUOTE
        out[last[quoted]] = _QUOTE
        pairs = lengths // 2
        shift = np.arange(int(pairs.sum())) - np.repeat(np.cumsum(pairs) - pairs, pairs)
        return np.delete(out, np.repeat(at, pairs) + shift).tobytes()

    def _opener(self, starts: np.ndarray, opening: np.ndarray, at: int) -> int:
        """Where the cell of run `at` begins in the content."""
        before = int(np.searchsorted(opening, at, side="right"))
        return self._offset + int(starts[opening[before - 1]]) if before else self._opened

    def _unclosed(self, place: int) -> UserError:
        never = self._text.newlines_in_cells
        return self._error(place, "is never closed" if never else "is not closed in its line")

    def _error(self, place: int, what: str) -> UserError:
        line, cell = _line_at(self._path, place)
        fixes = [
            "where a quote is a character of the text, give the file's table `quoting: none` in "
            "the feature spec"
        ]
        if self._text.escape == "none" and b'\\"' in cell:
            fixes.insert(0, 'where \\" is a quote inside a cell, `escape: backslash`')
        if not self._text.newlines_in_cells:
            fixes.append("where cells hold line breaks, `newlines_in_cells: true`")
        fixes.append("else close the quote, or double it inside the cell")
        return UserError(
            f"The cell that opens with a quote in line {line} of '{self._path}' {what}.",
            received=repr(cell.decode("utf-8", "replace")),
            fix="; ".join(fixes),
        )


def _follows_odd(slashes: tuple[np.ndarray, np.ndarray], places: np.ndarray) -> np.ndarray:
    """Whether an odd number of backslashes stands directly before each place."""
    ends = slashes[0] + slashes[1]
    run = np.minimum(np.searchsorted(ends, places), len(ends) - 1)
    return np.asarray((ends[run] == places) & (slashes[1][run] % 2 == 1))


def _line_at(path: Path, place: int) -> tuple[int, bytes]:
    """Number of the line, from 1, in which a byte of the content lies, and the text from there."""
    line, last = 1, b""
    with open_bytes(path) as stream:
        left = place
        while left and (block := stream.read(min(left, _BLOCK_BYTES))):
            left -= len(block)
            pair = last == b"\r" and block.startswith(b"\n")
            line += block.count(b"\n") + block.count(b"\r") - block.count(b"\r\n") - pair
            last = block[-1:]
        return line, stream.read(_SHOWN_BYTES)
