"""One string table for every vocabulary of an encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

_SEPARATOR = "\x1f"


class VocabularyLookup(tf.Module):
    """Looks up texts of several vocabularies in one op.

    The key of a text is its vocabulary's number and the text, so one table holds them all.

    Args:
        vocabularies: Name -> values; ids are 1 + position.
    """

    def __init__(self, vocabularies: Mapping[str, Sequence[str]]) -> None:
        super().__init__(name="vocabulary_lookup")
        self._numbers = {name: i for i, name in enumerate(vocabularies)}
        keys, ids = lookup_entries(vocabularies)
        initializer = tf.lookup.KeyValueTensorInitializer(keys, ids, tf.string, tf.int64)
        self._table = tf.lookup.StaticHashTable(initializer, default_value=0)

    def prefix(self, name: str) -> str:
        """First part of the keys of a vocabulary."""
        return f"{self._numbers[name]}{_SEPARATOR}"

    @tf.Module.with_name_scope
    def __call__(self, prefixes: tf.Tensor, texts: tf.Tensor) -> tf.Tensor:
        """Ids of texts: 1 + position in the vocabulary, 0 when it is not there.

        Args:
            prefixes: `prefix` of each text's vocabulary, string, broadcasts to `texts`.
            texts: string, any shape.

        Returns:
            int64 of the shape of `texts`.
        """
        prefixes = tf.broadcast_to(prefixes, tf.shape(texts))
        return self._table.lookup(tf.strings.join([prefixes, texts]))


def lookup_entries(vocabularies: Mapping[str, Sequence[str]]) -> tuple[list[str], list[int]]:
    """Keys and ids of the table over some vocabularies, see `VocabularyLookup`."""
    keys = [
        f"{i}{_SEPARATOR}{value}"
        for i, values in enumerate(vocabularies.values())
        for value in values
    ]
    ids = [k for values in vocabularies.values() for k in range(1, len(values) + 1)]
    # Without any value the table still needs an entry; no text can have this key.
    return keys or [_SEPARATOR], ids or [0]
