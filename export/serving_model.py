"""Encoder and model as the signatures of one SavedModel."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import tensorflow as tf
import tf_keras

from export.merging import Rebuild, merged_model
from export.request_schema import RequestSchema
from export.tower_model import TowerModel
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.raw_types import RawType
from lfm4ads_tf.models.batch import EncodedBatch
from lfm4ads_tf.models.downstream import DownstreamModel
from lfm4ads_tf.models.upstream import Upstream

_SIDES: dict[str, Literal["user", "item"]] = {"user_tower": "user", "item_tower": "item"}


class ServingModel:
    """Raw requests -> outputs, in the graph that is exported.

    Kinds and outputs: `foundation` and `ranker_<scenario>` give p_t = sigmoid(logit_t) as `<task>`
    (B,), `user_tower` and `item_tower` give `representation` (B, D); all float32. An export asks
    for the columns that its model reads and for no others: the encoder is fed missing values for
    the rest.

    Args:
        kind: See above.
        model: An upstream, or DownstreamModel for a ranker; called once.
        encoder: The encoder of the feature spec.
        batch: Any encoded batch of the model.
        rebuild: Makes the model with another number of shards; needed when its tables are sharded.

    Raises:
        ValueError: The kind is unknown or does not fit the model.
        UserError: Two inputs cannot be told apart in a request.
    """

    def __init__(
        self,
        kind: str,
        model: tf_keras.Model,
        encoder: Encoder,
        batch: EncodedBatch,
        rebuild: Rebuild | None = None,
    ) -> None:
        ranker = kind.startswith("ranker_")
        if not ranker and kind not in ("foundation", *_SIDES):
            raise ValueError(f"Unknown kind of export: {kind!r}.")
        if not isinstance(model, DownstreamModel if ranker else Upstream):
            raise ValueError(f"A {type(model).__name__} cannot be exported as {kind!r}.")
        self._encoder = encoder
        self._original = model
        self._side = _SIDES.get(kind)
        self._tower: TowerModel | None = None
        self._model: tf_keras.Model | None = None
        layout = model.layout
        features = [f.name for f in layout.fields] + [d.name for d in layout.dense]
        if self._side is not None:
            self._tower = TowerModel(model.backbone, self._side)
            features = self._tower.features
        else:
            self._model = merged_model(model, rebuild, batch)
        read = {column for name in features for column in encoder.raw_columns_of(name)}
        if kind == "foundation":
            read = set(encoder.raw_types)  # the heads need the scenario key as well
        self.schema = RequestSchema(
            {column: of for column, of in encoder.raw_types.items() if column in read},
            {
                name: int(batch["representations"][name].shape[1]) - 1
                for name in representation_sources(model)
            },
        )
        self._example_spec = {
            column: parser for column, parser in encoder.example_spec().items() if column in read
        }
        for name, width in self.schema.representations.items():
            self._example_spec[name] = tf.io.FixedLenFeature([width], tf.float32, [0.0] * width)

    def expected(self, batch: EncodedBatch) -> dict[str, tf.Tensor]:
        """Outputs of the Keras model that was handed in, for an encoded batch."""
        if self._side is not None:
            represented = self._original.represent(batch)
            return {"representation": represented["UR" if self._side == "user" else "IR"]}
        return self._probabilities(self._original, batch)

    def golden_columns(self, columns: dict[str, pa.Array], batch: EncodedBatch) -> dict[str, Any]:
        """The columns of the golden requests; a subclass may ask for more than the encoder does."""
        return columns

    def write(self, folder: Path) -> None:
        """Writes the SavedModel with its signatures `serving_default` and `predict`."""
        archive = tf_keras.export.ExportArchive()
        # The lookup table has to be named; the variables are found through the endpoints, so that
        # only those in use are written, and no optimizer slot can come along.
        for resource in self._resources():
            archive.track(resource)
        # No layer branches on a tensor; AutoGraph would only take most of the time of a trace.
        plain = tf.autograph.experimental.do_not_convert
        examples = tf.TensorSpec([None], tf.string, name="examples")
        archive.add_endpoint("serving_default", plain(self._from_examples), [examples])
        archive.add_endpoint("predict", plain(self._from_tensors), [self.schema.tensor_specs()])
        logger = tf.get_logger()
        level = logger.level
        logger.setLevel("WARNING")
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints every signature
                archive.write_out(str(folder))
        finally:
            logger.setLevel(level)

    def _from_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(examples, self._example_spec)
        return self._run(parsed, tf.shape(examples)[0])

    def _from_tensors(self, request: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        raw: dict[str, Any] = {c: request[name] for c, name in self.schema.names.items()}
        batch = tf.shape(next(iter(raw.values())))[0]
        for column, of in self.schema.columns.items():
            if of.kind in ("texts", "numbers"):
                raw[column] = tf.RaggedTensor.from_tensor(raw[column], row_splits_dtype=tf.int64)
        return self._run(raw, batch)

    def _resources(self) -> list[Any]:
        """What the graph needs beside variables."""
        return [self._encoder]

    def _encoded(self, raw: Mapping[str, Any], size: tf.Tensor) -> EncodedBatch:
        """Encodes `size` rows, missing values standing for columns that no request holds."""
        columns = {
            column: raw[column] if column in self.schema.columns else _missing(of, size)
            for column, of in self._encoder.raw_types.items()
        }
        batch: EncodedBatch = self._encoder(columns)
        batch["representations"] = {
            name: with_presence(raw[name]) for name in self.schema.representations
        }
        return batch

    def _run(self, raw: Mapping[str, Any], size: tf.Tensor) -> dict[str, tf.Tensor]:
        """The outputs of `size` rows."""
        batch = self._encoded(raw, size)
        if self._tower is not None:
            return {"representation": tf.cast(self._tower(batch), tf.float32)}
        return self._probabilities(self._model, batch)

    @staticmethod
    def _probabilities(model: tf_keras.Model, batch: EncodedBatch) -> dict[str, tf.Tensor]:
        scores = tf.sigmoid(tf.cast(model(batch, training=False), tf.float32))  # (B, T)
        return {task: scores[:, t] for t, task in enumerate(model.layout.tasks)}


def with_presence(representation: tf.Tensor) -> tf.Tensor:
    """(B, d) -> (B, d + 1): the last column is 1 where any element is not zero."""
    present = tf.reduce_any(tf.not_equal(representation, 0.0), axis=1, keepdims=True)  # (B, 1)
    return tf.concat([representation, tf.cast(present, representation.dtype)], axis=1)


def representation_sources(model: tf_keras.Model) -> list[str]:
    """Names of the stored representations that a model reads."""
    return list(getattr(model, "sources", []))


def _missing(of: RawType, size: tf.Tensor) -> Any:
    """A column of `size` missing values."""
    if of.kind == "text":
        return tf.fill([size], "")
    if of.kind == "integer":
        return tf.fill([size], tf.constant(-1, tf.int64))
    if of.kind == "number":
        return tf.fill([size], float("nan"))
    if of.kind == "vector":
        return tf.zeros([size, of.size])
    values = tf.zeros([0], tf.string if of.kind == "texts" else tf.float32)
    splits = tf.zeros([size + 1], tf.int64)
    return tf.RaggedTensor.from_row_splits(values, splits, validate=False)
