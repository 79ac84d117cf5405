"""Names of a configuration -> the classes or functions that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar

from lfm4ads_tf.errors import UserError, nearest

Entry = TypeVar("Entry")
Member = TypeVar("Member")


class Registry(Mapping[str, Entry]):
    """A table of names that plug-ins add to.

    Entries of the package are given by where they are, `module:attribute`, and are imported when
    they are asked for: a table knows nothing of what is in it.

    Args:
        what: What an entry is, for messages, such as `adapter`.
        places: Name -> `module:attribute`.

    Raises:
        UserError: A name is unknown when it is asked for, or is registered twice.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> "bce" in lfm.LOSSES
        True
        >>> def twice(labels, logits, task_weights, row_weights=None):
        ...     return 2 * lfm.LOSSES["bce"](labels, logits, task_weights, row_weights)
        >>> with lfm.LOSSES.added("twice", twice):  # `@lfm.LOSSES.register("twice")` for good
        ...     list(lfm.LOSSES)
        ['bce', 'twice']
    """

    def __init__(self, what: str, places: Mapping[str, str]) -> None:
        self.what = what
        self._entries: dict[str, Entry | str] = dict(places)

    def __iter__(self) -> Iterator[str]:
        """The names, in the order in which they were added."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Number of names."""
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        """Whether there is an entry of this name."""
        return name in self._entries

    def __getitem__(self, name: str) -> Entry:
        """The entry of a name.

        Raises:
            UserError: There is none.
        """
        if name not in self._entries:
            raise UserError(
                f"The {self.what} '{name}' is unknown.{nearest(name, self)}",
                fix=f"use one of {', '.join(self)}",
            )
        entry: Any = self._entries[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = getattr(import_module(module), attribute)
            self._entries[name] = entry
        return entry

    def name_of(self, entry: Any) -> str:
        """The name of an entry.

        Raises:
            UserError: It is not registered.
        """
        for name, known in self._entries.items():
            if _place(known) == _place(entry):
                return name
        raise UserError(
            f"The {self.what} {_place(entry)} has no name, by which it could be saved.",
            fix="register it: @<registry>.register('<name>')",
        )

    def register(self, name: str) -> Callable[[Member], Member]:
        """A decorator that adds a class or function under a name.

        Raises:
            UserError: The name belongs to another entry.
        """

        def add(entry: Member) -> Member:
            known = self._entries.get(name)
            same = known is not None and _place(known) == _place(entry)
            if known is not None and not same:
                raise UserError(
                    f"The {self.what} '{name}' is registered twice.",
                    received=f"{_place(known)} and {_place(entry)}",
                    fix="give one of them another name",
                )
            self._entries[name] = entry  # type: ignore[assignment]
            return entry

        return add

    @contextmanager
    def added(self, name: str, entry: Entry) -> Iterator[None]:
        """Has an entry inside the context alone."""
        self.register(name)(entry)
        try:
            yield
        finally:
            del self._entries[name]


def _place(entry: Any) -> str:
    """Where an entry comes from."""
    if isinstance(entry, str):
        return entry
    named = hasattr(entry, "__module__") and hasattr(entry, "__qualname__")
    return f"{entry.__module__}:{entry.__qualname__}" if named else repr(entry)
