"""Carries tables from one layout into another by table name."""

from __future__ import annotations

from typing import Any

from lfm4ads_tf.embeddings.table import SLICE_ROWS, ShardedEmbedding
from lfm4ads_tf.embeddings.table_slots import TableSlots
from lfm4ads_tf.errors import UserError


def transplant(
    source: ShardedEmbedding,
    target: ShardedEmbedding,
    source_optimizer: TableSlots | None = None,
    target_optimizer: TableSlots | None = None,
) -> tuple[str, ...]:
    """Copies the tables that both layers have, optimizer slots included.

    A checkpoint of an older layout is thus carried into a grown one: rebuild its layer with
    `ShardedEmbedding.from_manifest`, restore the checkpoint into it, transplant. The missing id's
    row goes to the missing id's row; ids that the source does not have, and tables that it does
    not have, keep their initial values. Numbers of shards may differ; with `shards=1` as target
    the shards are merged. Rows are copied slice by slice.

    Args:
        source: Layer to read.
        target: Layer to write.
        source_optimizer: Optimizer built with `source`; slots are copied if both are given.
        target_optimizer: Optimizer built with `target`.

    Returns:
        Names of the copied tables.

    Raises:
        UserError: A common table has another width, another number of sets, or fewer rows in the
            target, or the optimizers keep other slots. Nothing is written then.
    """
    common = [name for name in target.layout.tables if name in source.layout.tables]
    for name in common:
        old, new = source.layout.table(name), target.layout.table(name)
        alike = (old.dim, source.sets, old.hashing) == (new.dim, target.sets, new.hashing)
        if not alike or new.stored_rows < old.stored_rows:
            raise UserError(
                f"Embedding table '{name}' does not fit into the new layout.",
                received=f"from rows={old.rows}, dim={old.dim}, sets={source.sets}, "
                f"hashing={old.hashing} to rows={new.rows}, dim={new.dim}, sets={target.sets}, "
                f"hashing={new.hashing}",
                fix="Keep dim, sets and hashing and do not lower rows, or rename the table.",
            )
    if source_optimizer is None or target_optimizer is None:
        for name in common:
            _copy(source, target, name)
        return tuple(common)
    if source_optimizer.rule.slots != target_optimizer.rule.slots:
        raise UserError(
            "Optimizer slots of the embedding tables differ in kind.",
            received=f"{source_optimizer.rule} to {target_optimizer.rule}",
            fix="Use the same rule, or transplant without optimizers to start its slots anew.",
        )
    for name in common:
        old_home, new_home = source.layout.home(name), target.layout.home(name)
        _copy(source, target, name)
        if old_home.trainable and new_home.trainable:
            for slot in source_optimizer.rule.slots:
                _copy(
                    source,
                    target,
                    name,
                    source_optimizer.slot(source, old_home.name, slot.name),
                    target_optimizer.slot(target, new_home.name, slot.name),
                )
    return tuple(common)


def _copy(
    source: ShardedEmbedding,
    target: ShardedEmbedding,
    name: str,
    source_variable: Any | None = None,
    target_variable: Any | None = None,
) -> None:
    """Copies the ids of one table, and its missing row to where the target keeps it."""
    rows = source.layout.table(name).stored_rows
    for start in range(0, rows, SLICE_ROWS):
        stop = min(start + SLICE_ROWS, rows)
        values = source.read_rows(name, start, stop, source_variable)
        target.write_rows(name, start, values, target_variable)
    missing = source.read_rows(name, rows, rows + 1, source_variable)
    target.write_rows(name, target.layout.table(name).stored_rows, missing, target_variable)
