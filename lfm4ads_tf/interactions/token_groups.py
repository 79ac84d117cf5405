"""Which fields make which token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.seeding import derive


def runs(fields: Sequence[str], count: int) -> list[list[str]]:
    """Runs of neighbours; their sizes differ by one at most, the larger ones stand first.

    Args:
        fields: The fields in order.
        count: Number of groups.

    Raises:
        UserError: There are more groups than fields, or there are no fields.
    """
    if not fields:
        raise UserError(
            "A mixer has no embedded feature that its tokens could be made of.",
            fix="declare one, omit fewer of them, or leave sequence_tokens out",
        )
    if count > len(fields):
        raise UserError(
            "There are more tokens than fields that they could be made of.",
            received=f"{count} tokens of fields; {len(fields)} fields: {', '.join(fields)}",
            fix=f"ask for {len(fields)} tokens or fewer",
        )
    size, more = divmod(len(fields), count)
    ends = [n * size + min(n, more) for n in range(count + 1)]
    return [list(fields[a:b]) for a, b in zip(ends[:-1], ends[1:], strict=True)]


def permuted(fields: Sequence[str], count: int, seed: int) -> list[list[str]]:
    """Runs of the fields in an order that a seed draws; in whichever order they are given.

    A field's place depends on the seed and the fields' names alone: any process draws the same.

    Args:
        fields: The fields.
        count: Number of groups.
        seed: Seed of the order.

    Raises:
        UserError: There are more groups than fields.

    Source: RankUp (arXiv 2604.17878), randomised permutation splitting: a permutation of fields,
    not of their numbers. That it is drawn once is ours.
    """
    return runs(sorted(fields, key=lambda name: (derive(seed, f"token/{name}"), name)), count)


def extended(groups: Sequence[Sequence[str]], fields: Sequence[str]) -> list[list[str]]:
    """The groups with the fields that are in none, each in the group that is smallest by then.

    No other field moves. Of equally small groups it is the first.

    Args:
        groups: The groups.
        fields: All fields, in order.
    """
    found = [list(group) for group in groups]
    known = {name for group in groups for name in group}
    for name in fields:
        if name not in known:
            min(found, key=len).append(name)
    return found


def check_groups(
    groups: Mapping[str, Sequence[str]],
    fields: Sequence[str],
    alone: Sequence[str] = (),
    *,
    all_fields: bool = True,
) -> None:
    """Refuses named groups that are no partition of the fields, or of some of them.

    Args:
        groups: Name -> fields.
        fields: All fields that groups are made of.
        alone: Fields that have tokens of their own beside them.
        all_fields: Whether each field has to be in a group.

    Raises:
        UserError: A group is empty, names an unknown feature or one that has a token of its own or
            is named as such a one, or a feature is in two groups or in none.
    """
    owner: dict[str, str] = {}
    for group, names in groups.items():
        if not names:
            raise UserError(
                f"The token group '{group}' names no feature.",
                fix="name embedded features in it, or leave it out",
            )
        if group in alone:
            raise UserError(
                f"The token group '{group}' has the name of a multi-valued feature, which has a "
                "token of its own.",
                received=f"sequence_tokens: true; {group}: {', '.join(names)}",
                fix="give the group another name, or leave sequence_tokens out",
            )
        for name in names:
            if name in alone:
                raise UserError(
                    f"The token group '{group}' names '{name}', a multi-valued feature, which has "
                    "a token of its own.",
                    received=f"sequence_tokens: true; {group}: {', '.join(names)}",
                    fix=f"take '{name}' out of the group, or leave sequence_tokens out",
                )
            if name not in fields:
                raise UserError(
                    f"The token group '{group}' names the unknown feature '{name}'."
                    + nearest(name, fields),
                    received=", ".join(names),
                    fix=f"use some of {', '.join(fields)}",
                )
            if name in owner:
                raise UserError(
                    f"The feature '{name}' is in two token groups.",
                    received=f"{owner[name]} and {group}",
                    fix="take it out of one of them",
                )
            owner[name] = group
    left = [name for name in fields if name not in owner]
    if left and all_fields:
        raise UserError(
            f"The feature '{left[0]}' is in no token group.",
            received=f"groups of {len(owner)} of {len(fields)} features",
            fix=f"add {', '.join(left)} to the groups",
        )
