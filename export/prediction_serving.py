"""Foundation model or ranker as a SavedModel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.golden import GoldenRequest
from lfm4ads_tf.export.golden_rows import GoldenRows
from lfm4ads_tf.export.merging import Rebuild, merged_model
from lfm4ads_tf.export.ranking import Ranking
from lfm4ads_tf.export.representation_lookup import RepresentationLookup
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.export.rounding import (
    Change,
    Rounding,
    changed_batch,
    encoded_rounding,
    rounding_bound,
)
from lfm4ads_tf.export.serving_model import ServingModel, with_presence
from lfm4ads_tf.export.signature import Signature
from lfm4ads_tf.features import raw_values
from lfm4ads_tf.features.raw_types import RawType, raw_sides
from lfm4ads_tf.features.request_name import request_name
from lfm4ads_tf.models.model_parts import ModelParts
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.representations.names import side_of
from lfm4ads_tf.transfer.downstream import DownstreamModel


class PredictionServing(ServingModel):
    """Raw requests -> p_t = sigmoid(logit_t) as `<task>` float32 (B,).

    Beside Predict it answers Classify (the tasks are the classes) and Regress (one task), tells
    what the model is fed (`encode`), and as a ranker scores many candidates of one user (`rank`).

    Stored representations come with the request, or are looked up by the keys of user and item in
    tables of the SavedModel; a key that has none reads zeros, as in training.

    Args:
        model: An upstream, or DownstreamModel for a ranker; called once.
        rows: Real rows.
        rebuild: Makes the model with another number of shards or another type of tables.
        storage: Type of the tables.
        lookups: Name -> representations by key; those that are not there come with the request.

    Attributes:
        model: The model with tables for inference.
        ranking: The graph of `rank`; None for an upstream.

    Raises:
        ExportRefused: A value of a table cannot be kept in this type.
        UserError: Two inputs cannot be told apart in a request, or a key is no text.
    """

    def __init__(
        self,
        model: UpstreamModel | DownstreamModel,
        rows: GoldenRows,
        *,
        rebuild: Rebuild | None = None,
        storage: ServedStorage = "float32",
        lookups: Mapping[str, RepresentationLookup] | None = None,
    ) -> None:
        self._original = model
        self._expected: tuple[GoldenRows, dict[str, np.ndarray]] | None = None  # of the last rows
        self.model = merged_model(model, rebuild, rows.batch, storage)
        self._lookups = dict(lookups or {})
        ranker = isinstance(model, DownstreamModel)
        read = list(model.layout.features)
        if ranker and model.module is not None:
            read += [f for f in model.module.context.features if f not in read]
        # the heads of the upstream need the scenario and the branch as well
        encoder = rows.encoder.only(read, keys=not ranker)
        spec = rows.encoder.spec
        self._keys = {"user": spec.keys.user, "item": spec.keys.item}
        columns = dict(encoder.raw_types)
        for name in self._lookups:
            key = self._keys[side_of(name)]
            if columns.setdefault(key, RawType("text")).kind not in ("text", "integer"):
                raise UserError(
                    f"Representations cannot be looked up by '{key}', which a feature reads as "
                    f"{columns[key]}.",
                    fix="set export.representations=request, or read the key as text",
                )
        widths = {
            name: int(rows.batch["representations"][name].shape[1]) - 1
            for name in representation_sources(model)
            if name not in self._lookups
        }
        super().__init__(encoder, RequestSchema(columns, widths))
        sides = {**raw_sides(spec), self._keys["user"]: "user", self._keys["item"]: "item"}
        self._sides = {column: sides[column] for column in columns}
        self._sides |= {name: side_of(name) for name in widths}
        self.ranking: Ranking | None = None
        if ranker:
            self.ranking = Ranking(self.model, encoder, self.schema, self._sides, self._stored)

    @property
    def tasks(self) -> list[str]:
        """See `ServingModel`."""
        return self._original.served_tasks

    @property
    def auxiliary_tasks(self) -> list[str]:
        """See `ServingModel`."""
        return [task for task in self._original.layout.tasks if task not in self.tasks]

    @property
    def field_groups(self) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """See `ServingModel`."""
        return ModelParts(self.model).field_groups

    def trained(self, rows: GoldenRows) -> dict[str, np.ndarray]:
        """See `ServingModel`."""
        if self.model is self._original and not self._lookups:
            return self.expected(rows)  # the same computation
        return {k: v.numpy() for k, v in self._probabilities(self._original, rows.batch).items()}

    def expected(self, rows: GoldenRows) -> dict[str, np.ndarray]:
        """See `ServingModel`."""
        if self._expected is None or self._expected[0] is not rows:
            probabilities = self._probabilities(self.model, self._served(rows))
            self._expected = (rows, {k: v.numpy() for k, v in probabilities.items()})
        return self._expected[1]

    def roundings(self, rows: GoldenRows) -> dict[str, Rounding]:
        """See `ServingModel`; one bound for all tasks."""
        parts, batch = ModelParts(self.model), self._served(rows)
        in_logits = self._original.sigmoid

        def outputs(change: Change) -> np.ndarray:
            logits = self.model(changed_batch(batch, change), training=False)
            values: tf.Tensor = logits if in_logits else self.model.probabilities(logits)
            return np.asarray(values)

        bound = rounding_bound(outputs, parts.dense.values(), list(parts.embeddings.values()))
        return {task: Rounding("logit" if in_logits else "value", bound) for task in self.tasks}

    def run(self, raw: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """See `ServingModel`."""
        return self._probabilities(self.model, self.encoded(raw))

    def encoded(self, raw: Mapping[str, Any]) -> EncodedBatch:
        """See `ServingModel`."""
        batch = super().encoded(raw)
        names = representation_sources(self._original)
        batch["representations"] = {name: self._stored(raw, name) for name in names}
        return batch

    def signatures(self) -> list[Signature]:
        """See `ServingModel`."""
        inputs = tf.TensorSpec([None], tf.string, name="inputs")
        examples = tf.TensorSpec([None], tf.string, name="examples")
        signatures = super().signatures()
        signatures.append(Signature("encode", self._encode, examples))
        if self.ranking is not None:
            signatures.append(Signature("rank", self._rank, self.schema.tensor_specs()))
        signatures.append(Signature("classify", self._classify, inputs, "classify"))
        regress = {task: self._regress(task) for task in self.tasks}
        for name, task in self._regressed.items():
            signatures.append(Signature(name, regress[task], inputs, "regress"))
        return signatures

    def golden(
        self,
        rows: GoldenRows,
        scores: Mapping[str, np.ndarray],
        roundings: Mapping[str, Rounding] | None = None,
    ) -> list[GoldenRequest]:
        """See `ServingModel`."""
        roundings = self.roundings(rows) if roundings is None else roundings
        requests = super().golden(rows, scores, roundings)
        inputs = {"inputs": requests[0].inputs["examples"]}
        allowed = requests[0].allowed
        stacked = np.stack([scores[task] for task in self.tasks], axis=1)  # (B, T)
        limits = {"scores": np.stack([allowed[task] for task in self.tasks], axis=1)}  # (B, T)
        classes = np.broadcast_to(np.array(self.tasks, object), stacked.shape)
        answer = {"classes": classes, "scores": stacked}
        requests.append(GoldenRequest("classify", inputs, answer, limits))
        for name, task in self._regressed.items():
            bounds = {"outputs": allowed[task]}
            requests.append(GoldenRequest(name, inputs, {"outputs": scores[task]}, bounds))
        encoded = {k: v.numpy() for k, v in self._features(self._served(rows)).items()}
        assert self._encoder is not None  # a prediction reads raw columns
        shifts = {request_name(name): shift for name, shift in self._encoder.shifts.items()}
        limits = {
            name: encoded_rounding(shifts.get(name, 0.0)).allowed(values)
            for name, values in encoded.items()
            if values.dtype.kind == "f"
        }
        requests.append(GoldenRequest("encode", requests[0].inputs, encoded, limits))
        if self.ranking is not None:
            users = [name for name, side in self._sides.items() if side == "user"]
            stored = [n for n in representation_sources(self._original) if side_of(n) == "user"]
            candidates = rows.candidates_of(0, users, stored)
            request = self.ranking.request(candidates)
            expected = self.expected(candidates)
            limits = {
                name: rounding.allowed(expected[name]) for name, rounding in roundings.items()
            }
            requests.append(GoldenRequest("rank", request, expected, limits))
        return requests

    @property
    def sides(self) -> Mapping[str, str]:
        """See `ServingModel`."""
        return self._sides

    @property
    def _regressed(self) -> dict[str, str]:
        """Signature of Regress -> task; the plain one gives the first task."""
        return {"regress": self.tasks[0], **{f"regress_{task}": task for task in self.tasks}}

    def _stored(self, raw: Mapping[str, Any], name: str) -> tf.Tensor:
        """A stored representation of raw rows, (B, d + 1)."""
        if name not in self._lookups:
            return with_presence(raw[name])
        keys = raw[self._keys[side_of(name)]]
        if keys.dtype != tf.string:
            keys = tf.where(keys < 0, "", tf.strings.as_string(keys))  # -1 is a missing key
        return self._lookups[name](keys)

    def _served(self, rows: GoldenRows) -> EncodedBatch:
        """Rows encoded as for training, with what a lookup holds of their representations."""
        stored = dict(rows.batch["representations"])
        for name in self._lookups:
            keys = raw_values.texts(rows.columns[self._keys[side_of(name)]]).to_pylist()
            stored[name] = self._lookups[name](tf.constant(keys, tf.string))
        return {**rows.batch, "representations": stored}

    def _rank(self, request: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        assert self.ranking is not None  # by `signatures`
        return self._named(self.model, self.ranking(self.raw_rows(self.ranking.checked(request))))

    def _classify(self, inputs: tf.Tensor) -> Mapping[str, tf.Tensor]:
        probabilities = self.of_examples(inputs)
        scores = tf.stack([probabilities[task] for task in self.tasks], axis=1)  # (B, T)
        classes = tf.constant([self.tasks])  # (1, T)
        return {"classes": tf.broadcast_to(classes, tf.shape(scores)), "scores": scores}

    def _regress(self, task: str) -> Any:
        return lambda inputs: {"outputs": self.of_examples(inputs)[task]}

    def _encode(self, examples: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return self._features(self.encoded(self.parsed(examples)))

    @cached_property
    def _read(self) -> set[str]:
        assert self._encoder is not None  # a prediction reads raw columns
        return set(self._encoder.read.features)

    def _features(self, batch: EncodedBatch) -> dict[str, tf.Tensor]:
        """What the model is fed, by the request names of features and representations."""
        assert self._encoder is not None
        layout, read = self._encoder.layout, self._read
        tensors: dict[str, tf.Tensor] = {}
        sources: dict[str, str] = {}

        def add(name: str, values: tf.Tensor, what: str, suffix: str = "") -> None:
            key = f"{request_name(name)}{suffix}"
            if key in tensors:
                raise UserError(
                    f"{what} and {sources[key]} cannot be told apart in the signature `encode`.",
                    received=f"both are called '{key}' there",
                    fix="rename one of them in the feature spec",
                )
            tensors[key], sources[key] = values, what

        for field, ids in zip(layout.single, tf.unstack(batch["ids"], axis=1), strict=True):
            if field.name in read:
                add(field.name, ids, f"the feature '{field.name}'")  # (B,)
        width = sum(dense.width for dense in layout.dense)
        columns = tf.unstack(batch["dense"], width, axis=1) if width else []
        first = 0
        for dense in layout.dense:
            last = first + dense.width
            if dense.name in read:
                held = columns[first] if dense.width == 1 else batch["dense"][:, first:last]
                add(dense.name, held, f"the feature '{dense.name}'")  # (B,) or (B, w)
            first = last
        for name, (ids, weights) in batch["bags"].items():
            if name in read:
                add(name, ids.to_tensor(-1), f"the feature '{name}'")  # (B, L)
                if weights is not None:
                    told = f"the weights of '{name}'"
                    add(name, weights.to_tensor(0.0), told, "_weights")  # (B, L)
        for name in representation_sources(self._original):
            vectors = batch["representations"][name][:, :-1]  # (B, d)
            add(name, vectors, f"the representation '{name}'")
        if self.ranking is None:
            add("scenario_index", batch["scenario"], "the scenario")
            add("branch_index", batch["branch"], "the branch")
        return tensors

    def _probabilities(self, model: Any, batch: EncodedBatch) -> dict[str, tf.Tensor]:
        return self._named(model, model(batch, training=False))

    def _named(self, model: Any, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """A model's logits (B, T) as probabilities of the served tasks; may read its variables."""
        scores = model.probabilities(tf.cast(logits, tf.float32))  # (B, T)
        every = zip(self._original.layout.tasks, tf.unstack(scores, axis=1), strict=True)
        return {task: score for task, score in every if task in self.tasks}


def representation_sources(model: Any) -> list[str]:
    """Names of the stored representations that a model reads."""
    return list(getattr(model, "sources", []))
