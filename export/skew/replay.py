"""The replay of a skew check: a served model's encoding and scores against the run's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lfm4ads_tf.analysis.value_names import ValueNames
from lfm4ads_tf.data.statistics import LARGEST_LOG_ODDS
from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.representation_lookup import storage_rounding
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.export.rounding import Rounding, encoded_rounding, score_limit
from lfm4ads_tf.export.skew.comparison import (
    SkewComparison,
    ids_differ,
    numbers_apart,
    padded,
    same_width,
)
from lfm4ads_tf.export.skew.logged_rows import LoggedRows
from lfm4ads_tf.export.skew.offline_rows import OfflineRows
from lfm4ads_tf.export.skew.replay_target import Outputs, ReplayTarget
from lfm4ads_tf.features import raw_values
from lfm4ads_tf.features.raw_types import RawType
from lfm4ads_tf.features.request_name import request_name
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.progress import Progress

_BATCH = 512
# what the heads are chosen by: name -> output of `encode`, part of the encoded rows
_KEYS = {"the scenario": ("scenario_index", "scenario"), "the branch": ("branch_index", "branch")}


@dataclass
class _Tally:
    """Rows of one feature that differ so far; place and values of the first."""

    name: str
    kind: str
    differing: int = 0
    place: int | None = None
    offline: str = ""
    served: str = ""
    largest: float | None = None


class SkewReplay:
    """Sends logged rows to a served model and compares batch by batch.

    Args:
        spec: The feature spec.
        side: The rows as training sees them.
        logged: The rows as they were logged.
        contract: `contract.json` of the export: what a request holds, and what scores may differ.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        side: OfflineRows,
        logged: LoggedRows,
        contract: Mapping[str, Any],
    ) -> None:
        self._spec = spec
        self._side = side
        self._logged = logged
        self._names = ValueNames(spec, side.fitted)
        self._request = logged.served(side.columns)
        self._contract = contract
        types = side.encoder.raw_types
        self._schema = RequestSchema(
            {c: types.get(c) or RawType(kind) for c, kind in contract["columns"].items()},
            contract["representations"],
        )
        self._tallies: dict[str, _Tally] = {}
        layout = side.encoder.layout
        self._single = {field.name: k for k, field in enumerate(layout.single)}
        starts = np.cumsum([0, *[d.width for d in layout.dense]]).tolist()
        self._dense = {
            d.name: slice(start, start + d.width)
            for d, start in zip(layout.dense, starts, strict=False)
        }

    def run(self, model: ReplayTarget, *, quiet: bool) -> None:
        """Replays all rows."""
        count = len(self._logged)
        with Progress("replay", count, quiet=quiet) as progress:
            for start in range(0, count, _BATCH):
                rows = slice(start, min(start + _BATCH, count))
                examples = self._examples(rows)
                self._compare_features(rows, model.run("encode", examples), model.where)
                self._compare_scores(rows, model.run("serving_default", examples), model.where)
                progress.advance(rows.stop - rows.start)

    def features(self, cause: str) -> list[SkewComparison]:
        """Features in the spec's order, then representations, the scenario and the branch.

        Args:
            cause: What a difference comes from that the raw values do not explain.
        """
        order = [*self._side.features, *self._side.representations, *_KEYS]
        return [
            self._comparison(self._tallies[name], self._reason(self._tallies[name], cause))
            for name in order
            if name in self._tallies
        ]

    def scores(self) -> list[SkewComparison]:
        """One per task."""
        tasks = self._contract["tasks"]
        return [self._comparison(self._tallies[f"score {task}"], "") for task in tasks]

    def raw_columns(self) -> list[SkewComparison]:
        """Moving columns that the log holds, against those of the end of training."""
        comparisons = []
        for column, logged in self._logged.moving.items():
            tally = _Tally(column, "raw column")
            ours = [_value(self._side.columns[column], i) for i in range(len(self._logged))]
            theirs = [_value(logged, i) for i in range(len(self._logged))]
            places = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if _apart(a, b)]
            if places:
                tally.place, tally.differing = places[0], len(places)
                tally.offline, tally.served = _text(ours[places[0]]), _text(theirs[places[0]])
            comparisons.append(self._comparison(tally, ""))
        return comparisons

    def _examples(self, rows: slice) -> list[bytes]:
        columns = {c: raw_values.slice_rows(self._request[c], rows) for c in self._schema.columns}
        vectors = {}
        for name in self._schema.representations:
            stored = self._side.representations[name][:, :-1]
            vectors[name] = self._logged.vectors.get(name, stored)[rows]
        return self._schema.examples(columns, vectors)

    def _compare_features(self, rows: slice, served: Outputs, where: str) -> None:
        encoded = self._side.encoded
        for name in self._side.features:
            key = request_name(name)
            answer = _output(served, key, where, rows)
            if name in self._single:
                ids = encoded["ids"][rows, self._single[name]]
                self._note_ids(name, rows, ids[:, np.newaxis], answer.reshape(len(ids), -1))
            elif name in self._dense:
                numbers = encoded["dense"][rows, self._dense[name]]
                shift = self._side.encoder.shifts.get(name, 0.0)
                if self._kind(name) == "statistic":
                    shift = LARGEST_LOG_ODDS
                allowed = encoded_rounding(shift).allowed(numbers)
                self._note_numbers(name, self._kind(name), rows, numbers, answer, allowed)
            else:
                weights = served.get(f"{key}_weights")
                self._note_bag(name, rows, answer, weights)
        for name, values in self._side.representations.items():
            answer = _output(served, request_name(name), where, rows)
            # a lookup in the export has the type of its tables
            sent = name in self._contract["representations"]
            storage: ServedStorage = "float32" if sent else self._contract["tables"]
            vectors = values[rows, :-1]
            allowed = storage_rounding(vectors, storage)
            self._note_numbers(name, "representation", rows, vectors, answer, allowed)
        for name, (output, batch_key) in _KEYS.items():
            if output in served:
                ids = encoded[batch_key][rows]
                answer = _output(served, output, where, rows)
                self._note_ids(name, rows, ids[:, np.newaxis], answer[:, np.newaxis])

    def _compare_scores(self, rows: slice, served: Outputs, where: str) -> None:
        for task in self._contract["tasks"]:
            t = self._side.encoder.layout.tasks.index(task)
            answer = _output(served, task, where, rows)
            ours = self._side.scores[rows, t : t + 1]
            self._note_numbers(
                task, "score", rows, ours, answer, score_limit(self._contract, task, ours)
            )

    def _note_bag(
        self, name: str, rows: slice, ids: np.ndarray, weights: np.ndarray | None
    ) -> None:
        """Compares lists, and weights where the ids are the same."""
        values, splits, factors = self._side.encoded["bags"][name]
        ours = padded(values, splits, rows, -1, ids.shape[1])
        theirs = same_width(ids, ours.shape[1], -1)
        self._note_ids(name, rows, ours, theirs)
        if factors is None or weights is None:
            return
        our_weights = padded(factors, splits, rows, 0.0, weights.shape[1])
        beyond, _ = numbers_apart(
            our_weights,
            same_width(weights, our_weights.shape[1], 0.0),
            Rounding("value").allowed(our_weights),
        )
        differ = beyond & ~ids_differ(ours, theirs)
        self._note(
            name,
            self._kind(name),
            rows,
            differ,
            lambda i: f"weights {_listed(our_weights[i])}",
            lambda i: f"weights {_listed(weights[i])}",
        )

    def _note_ids(self, name: str, rows: slice, ours: np.ndarray, theirs: np.ndarray) -> None:
        """Compares ids (B, L), padded with -1."""

        def text(ids: np.ndarray) -> str:
            shown = [str(i) for i in ids[ids >= 0][:8].tolist()] or ["missing"]
            more = ", ..." if len(ids[ids >= 0]) > 8 else ""
            return f"id{'s' if len(shown) > 1 else ''} {', '.join(shown)}{more}"

        def named(i: int) -> str:
            known = ours[i][ours[i] >= 0]
            if name not in self._single or not len(known):
                return text(ours[i])
            return f"{text(ours[i])} ({self._names.id(name, int(known[0]))})"

        differ = ids_differ(ours, theirs)
        self._note(name, self._kind(name), rows, differ, named, lambda i: text(theirs[i]))

    def _note_numbers(
        self,
        name: str,
        kind: str,
        rows: slice,
        ours: np.ndarray,
        theirs: np.ndarray,
        allowed: np.ndarray,
    ) -> None:
        """Compares numbers (B, W), which may differ by `allowed` (B, W)."""
        theirs = theirs.reshape(len(ours), -1)
        if theirs.shape != ours.shape:
            beyond, apart = np.ones(len(ours), bool), np.full(len(ours), np.inf)
        else:
            beyond, apart = numbers_apart(ours, theirs, allowed)
        tally = self._note(
            name,
            kind,
            rows,
            beyond,
            lambda i: self._names.number(name, ours[i]),
            lambda i: self._names.number(name, theirs[i]),
        )
        tally.largest = max(tally.largest or 0.0, float(apart.max(initial=0.0)))

    def _note(
        self, name: str, kind: str, rows: slice, differ: np.ndarray, ours: Any, theirs: Any
    ) -> _Tally:
        """Counts the rows that differ; keeps the first one's values."""
        key = f"score {name}" if kind == "score" else name
        tally = self._tallies.setdefault(key, _Tally(name, kind))
        if differ.any() and tally.place is None:
            first = int(np.argmax(differ))
            tally.place = rows.start + first
            tally.offline, tally.served = ours(first), theirs(first)
        tally.differing += int(differ.sum())
        return tally

    def _comparison(self, tally: _Tally, reason: str) -> SkewComparison:
        return SkewComparison(
            name=tally.name,
            kind=tally.kind,
            rows=len(self._logged),
            differing=tally.differing,
            row=None if tally.place is None else int(self._logged.numbers[tally.place]),
            offline=tally.offline,
            served=tally.served,
            reason=reason if tally.differing else "",
            largest=tally.largest,
        )

    def _kind(self, name: str) -> str:
        return "key" if name in _KEYS else self._spec.features[name].kind

    def _reason(self, tally: _Tally, cause: str) -> str:
        """Why the first differing row may differ."""
        if tally.place is None:
            return ""
        if tally.kind == "representation" and tally.name in self._logged.vectors:
            return "the log holds another vector than the representations at the end of training"
        if tally.kind not in ("representation", "key"):
            for column in self._side.encoder.raw_columns_of(tally.name):
                ours = _value(self._side.columns[column], tally.place)
                theirs = _value(self._request[column], tally.place)
                if column in self._logged.moving and _apart(ours, theirs):
                    return (
                        f"the log holds '{column}' = {_text(theirs)}, the state at the end of "
                        f"training gives {_text(ours)}"
                    )
                if column in self._logged.tables and _apart(ours, theirs):
                    return (
                        f"the log holds '{column}' = {_text(theirs)}, the training run's table "
                        f"has {_text(ours)}"
                    )
        return cause


def _output(served: Outputs, key: str, where: str, rows: slice) -> np.ndarray:
    """One output of the rows of a batch."""
    if key not in served:
        raise UserError(
            f"The answer of {where} lacks the output '{key}', which the run's model reads.",
            received=", ".join(sorted(served)),
            fix="the export was made from another spec: export the model again",
        )
    values = np.asarray(served[key])
    if len(values) != rows.stop - rows.start:
        raise UserError(
            f"The answer of {where} has another number of rows than the request.",
            received=f"{len(values)} rows of '{key}' for {rows.stop - rows.start}",
        )
    return values


def _value(column: Any, place: int) -> Any:
    """One raw value: text, number, list or None."""
    if isinstance(column, tuple):
        values, splits = column
        return [v for v in values[int(splits[place]) : int(splits[place + 1])]]
    value = column[place]
    return value.as_py() if isinstance(value, pa.Scalar) else value


def _apart(ours: Any, theirs: Any) -> bool:
    """Whether two raw values differ; numbers by more than float32's rounding."""
    numbers = (int, float, np.integer, np.floating)
    if isinstance(ours, numbers) and isinstance(theirs, numbers):
        both = np.array([ours]), np.array([theirs])
        limit = Rounding("value").allowed(np.maximum(*np.abs(both)))
        return bool(numbers_apart(*both, limit)[0].any())
    return bool((ours or None) != (theirs or None))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(str(v) for v in value[:8])}{', ...' if len(value) > 8 else ''}]"
    if isinstance(value, float | np.floating):
        return f"{float(value):.7g}"
    return "nothing" if value is None else repr(value)


def _listed(values: np.ndarray) -> str:
    return f"[{', '.join(f'{v:.7g}' for v in values[:8].tolist())}]"
