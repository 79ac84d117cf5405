"""Label columns are nothing but labels: no key, no time, no split, no period."""

from __future__ import annotations

from collections.abc import Mapping

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.split import SplitByColumn


def check_labels(spec: FeatureSpec) -> None:
    """Refuses a label column that identifies, orders or splits the rows.

    A split or an order by a label makes one class of each part, and a key made of a label is an
    input of every model.

    Raises:
        UserError: The message names both places.
    """
    labels: dict[str, str] = {}
    for section, tasks in (("tasks", spec.tasks), ("signals", spec.signals)):
        for name, task in tasks.items():
            labels.setdefault(task.label, f"{section}.{name}")
    for name, column in spec.best_possible.items():
        labels.setdefault(column, f"best_possible.{name}")
    keys = spec.keys
    places = {
        "keys.user": keys.user,
        "keys.item": keys.item,
        "keys.time": keys.time_column,
        "keys.scenario": keys.scenario,
        "split.by": spec.split.by if isinstance(spec.split, SplitByColumn) else None,
        "period.by": spec.period.by,
    }
    parts: dict[str, str | None] = {
        f"keys.{side}.{k}": part
        for side, of in (("user", keys.user_parts), ("item", keys.item_parts))
        for k, part in enumerate(of)
    }
    _refuse(places | parts, labels)
    if spec.auxiliary is not None:
        places = {"keys.user": keys.user, "keys.item": keys.item, **parts}
        places["auxiliary.order"] = spec.auxiliary.order
        _refuse(places, {c: f"auxiliary.labels.{n}" for n, c in spec.auxiliary.labels.items()})


def _refuse(places: Mapping[str, str | None], labels: Mapping[str, str]) -> None:
    """Refuses the first place whose column is a label, naming the label's place too."""
    for place, column in places.items():
        if column is not None and column in labels:
            raise UserError(
                f"`{place}` names the column '{column}', which is a label.",
                received=f"{place}: {column}, which is the label of `{labels[column]}` too",
                fix=f"name a column that is known before the impression in `{place}`, or another "
                f"column in `{labels[column]}`",
            )
