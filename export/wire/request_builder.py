"""Requests of one model, built from raw rows by the feature spec."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lfm4ads_tf.errors import nearest
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.export.wire.made_columns import make_columns
from lfm4ads_tf.export.wire.raw_rows import RawRows, Rows, check_weights
from lfm4ads_tf.export.wire.serving_error import ServingError
from lfm4ads_tf.features.kinds import MultiFeature
from lfm4ads_tf.features.missing_values import MissingValues
from lfm4ads_tf.features.raw_types import RawType, raw_sides, raw_types
from lfm4ads_tf.features.request_name import EXCLUDE, request_name
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.vector_columns import settled_vectors
from lfm4ads_tf.representations.names import side_of

_DTYPES = {"text": "string", "texts": "string", "integer": "int64"}
_RANKS = {"texts": 2, "numbers": 2, "vector": 2}


class RequestBuilder:
    """What one model asks for, in both forms that it accepts.

    The server tells the inputs of the signature `predict`; the spec tells what they are. An input
    that is no column of the spec is a stored representation.

    Args:
        spec: The feature spec that the model was trained with.
        signatures: Signature -> inputs and outputs, as `ServingClient.metadata` gives them.
        model: The model, for messages.

    Raises:
        ServingError: The model has no signature `predict`, or its inputs and the spec disagree.
    """

    def __init__(self, spec: FeatureSpec, signatures: Mapping[str, Any], model: str) -> None:
        self._spec = spec
        self._model = model
        self._missing = MissingValues(spec)
        if "predict" not in signatures:
            raise ServingError(
                "FAILED_PRECONDITION",
                f"{_capital(model)} has no signature 'predict', so it is no export of this "
                "library.",
                received=f"signatures {', '.join(sorted(signatures))}",
                fix="check the model's name",
            )
        inputs = signatures["predict"]["inputs"]
        # Keys that no feature reads are asked for by a model that looks representations up.
        user, item = spec.keys.user, spec.keys.item
        known = {user: RawType("text"), item: RawType("text")}
        known |= raw_types(spec)
        # A retrieval model's own column, which rows may leave out; a spec's own has precedence.
        self._optional = {EXCLUDE} & inputs.keys() - known.keys()
        known |= dict.fromkeys(self._optional, RawType("texts"))
        self._sides: dict[str, str] = {**raw_sides(spec), user: "user", item: "item"}
        columns: dict[str, RawType] = {}
        left = dict(inputs)
        for column, raw_type in known.items():
            info = left.pop(request_name(column), None)
            if info is not None:
                self._check(column, raw_type, info)
                columns[column] = raw_type
        representations = {}
        for name, info in left.items():
            shape = info["shape"]
            if info["dtype"] != "float32" or not shape or len(shape) != 2 or shape[1] is None:
                raise ServingError(
                    "FAILED_PRECONDITION",
                    f"{_capital(model)} asks for '{name}', which the feature spec does not know."
                    + nearest(name, [request_name(c) for c in known]),
                    fix="give the spec that the model was trained with",
                )
            representations[_representation_name(name)] = int(shape[1])
        self.schema = RequestSchema(columns, representations)

    def examples(self, rows: Rows) -> list[bytes]:
        """N serialized `tf.Example`s of N rows."""
        return self.schema.examples(*self._held(self._rows(rows), self.schema))

    def tensors(self, rows: Rows) -> dict[str, np.ndarray]:
        """Request name -> array of N rows, for the signature `predict`."""
        return self.schema.tensors(*self._held(self._rows(rows), self.schema))

    def rank_tensors(self, user_row: Rows, candidates: Rows) -> dict[str, np.ndarray]:
        """Request name -> array, for the signature `rank`.

        Args:
            user_row: One row with the user's columns and representations, and the context's.
            candidates: N rows with those of the items; a column of the context that differs from
                candidate to candidate is given here instead.

        Returns:
            The user's inputs have 1 row, the items' N, the context's 1 or N.

        Raises:
            ServingError: A column is on the wrong side, missing, or on both.
        """
        user = self._rows([user_row] if isinstance(user_row, Mapping) else user_row)
        items = self._rows(candidates)
        if user.count != 1:
            raise ServingError(
                "INVALID_ARGUMENT",
                "A ranking request has one user.",
                received=f"{user.count} rows",
                fix="call `rank` once per user, or `predict` with a row per user and item",
            )
        parts: dict[int, list[str]] = {id(user): [], id(items): []}
        for name in (*self.schema.columns, *self.schema.representations):
            side = self._sides.get(name) or side_of(name)
            mine = {"user": user, "item": items}.get(side)
            if mine is None:
                mine = items if name in items.columns else user
            other = items if mine is user else user
            if name in other.columns:
                where = "candidates hold" if other is items else "user's row holds"
                whose = "the context" if side == "context" else f"the {side}"
                raise ServingError(
                    "INVALID_ARGUMENT",
                    f"'{name}' describes {whose}, but the {where} it"
                    + (" too." if side == "context" else "."),
                    fix="give it once: what is the user's with the user, what is an item's with "
                    "the candidates",
                )
            parts[id(mine)].append(name)
        tensors: dict[str, np.ndarray] = {}
        for rows in (user, items):
            schema = self.schema.part(parts[id(rows)])
            tensors |= schema.tensors(*self._held(rows, schema))
        return tensors

    def _rows(self, rows: Rows) -> RawRows:
        held = RawRows(rows)
        make_columns(held, self._spec, self.schema.columns, self._model)
        held.take_out(self._missing)
        names = (*self.schema.columns, *self.schema.representations)
        held.refuse_unknown([*names, *known_columns(self._spec), *self._stored(held.columns)])
        return held

    def _held(
        self, rows: RawRows, schema: RequestSchema
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Columns and representations, checked."""
        columns = {}
        for name, raw_type in schema.columns.items():
            if name in self._optional and name not in rows.columns:
                rows.columns[name] = [None] * rows.count
            columns[name] = rows.column(name, raw_type, self._model)
        for name, feature in self._spec.features.items():
            if isinstance(feature, MultiFeature) and feature.weights is not None:
                check_weights(feature.raw_columns(name)[0], feature.weights, columns)
        vectors = {
            name: rows.vectors(name, width, self._model)
            for name, width in schema.representations.items()
        }
        return columns, vectors

    def _check(self, column: str, raw_type: RawType, info: Mapping[str, Any]) -> None:
        """The server's input must be what the spec says it is."""
        rank = _RANKS.get(raw_type.kind, 1)
        shape = info["shape"]
        fits = info["dtype"] == _DTYPES.get(raw_type.kind, "float32")
        fits &= shape is None or len(shape) == rank
        if raw_type.kind == "vector" and shape is not None and fits:
            fits = shape[1] in (None, raw_type.size)
        if not fits:
            raise ServingError(
                "FAILED_PRECONDITION",
                f"{_capital(self._model)} and the feature spec disagree on '{column}': the spec "
                f"says {raw_type}.",
                received=f"{info['dtype']} {shape}",
                fix="give the spec that the model was trained with",
            )

    @staticmethod
    def _stored(columns: Iterable[str]) -> list[str]:
        """Representations that other models read: rows may hold more than one model needs."""
        return [c for c in columns if c in ("UR", "IR") or c.startswith(("CR_user@", "CR_item@"))]


def known_columns(spec: FeatureSpec) -> set[str]:
    """Columns that the spec names: what features read, keys, labels, and what rows are split by."""
    known: set[str | None] = {*raw_types(spec), EXCLUDE, "row"}
    known |= {spec.keys.user, spec.keys.item, spec.keys.time_column, spec.keys.scenario}
    known |= {*spec.keys.user_parts, *spec.keys.item_parts}
    known |= {column for columns in settled_vectors(spec).values() for column in columns}
    known |= {task.label for task in spec.feedback.values()} | set(spec.best_possible.values())
    known |= {*spec.log.user_columns, *spec.log.item_columns}
    known |= {rows.by for rows in spec.segments.values()}
    known |= {c for table in spec.tables.values() for c in (table.key, *table.key_parts)}
    known |= {spec.period.by, getattr(spec.split, "by", None)}
    for name, feature in spec.features.items():
        known |= {*feature.raw_columns(name), *getattr(feature, "keys", [])}
    return {c for c in known if c}


def _representation_name(name: str) -> str:
    """The representation that has a request name: `CR_user_at_cross_2` -> `CR_user@cross_2`."""
    spelled = {"_dot_": ".", "_at_": "@"}
    read = re.sub(
        "_dot_|_at_|_u[0-9a-f]+_",
        lambda m: spelled.get(m.group()) or chr(int(m.group()[2:-1], 16)),
        name,
    )
    return read if request_name(read) == name else name


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
