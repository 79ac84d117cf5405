"""The features that stand for user and item by themselves."""

from __future__ import annotations

from collections.abc import Sequence

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.tables import embedded_features, is_bag


def key_features(spec: FeatureSpec, given: Sequence[str] | None, key: str) -> list[str]:
    """Features whose embeddings tell a user or an item apart.

    Args:
        spec: The feature spec.
        given: The features that the configuration names; where it names none, the first embedded
            single-valued feature of the user key's and of the item key's column, if there is one.
        key: Key of the configuration, for messages.

    Raises:
        UserError: A given one is no embedded feature.
    """
    embedded = embedded_features(spec)
    if given is None:
        single = [name for name in embedded if not is_bag(spec.features[name])]
        # first feature of each key's column; a key need not be a feature
        of_column = {spec.features[n].raw_columns(n): n for n in reversed(single)}
        keys = ((spec.keys.user,), (spec.keys.item,))
        return [of_column[column] for column in keys if column in of_column]
    refuse_unembedded(given, embedded, key)
    return list(given)


def refuse_unembedded(names: Sequence[str], embedded: Sequence[str], key: str) -> None:
    """Refuses names of what is no embedded feature.

    Args:
        names: The features that a configuration names.
        embedded: The embedded features.
        key: Key of the configuration, for messages.

    Raises:
        UserError: There is one.
    """
    for name in names:
        if name not in embedded:
            raise UserError(
                f"{key} names '{name}', which is no embedded feature." + nearest(name, embedded),
                received=f"priors: {', '.join(names)}",
                fix=f"use some of {', '.join(embedded)}",
            )
