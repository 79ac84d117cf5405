"""What every export is made of: requests, their encoding, and the signatures over them."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.export.archive import write_archive
from lfm4ads_tf.export.golden import GoldenRequest
from lfm4ads_tf.export.golden_rows import GoldenRows
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.export.rounding import Rounding
from lfm4ads_tf.export.signature import Signature
from lfm4ads_tf.features import raw_types
from lfm4ads_tf.features.dense_encoder import finite_vectors
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.graph_checks import graph_assert


class ServingModel(abc.ABC):
    """Raw requests -> outputs, in the graph that is exported.

    An export asks for the raw columns that its model reads and for no others.

    Args:
        encoder: Encodes what the model reads; None where it reads no raw column.
        schema: What a request holds.
    """

    def __init__(self, encoder: Encoder | None, schema: RequestSchema) -> None:
        self.schema = schema
        self._encoder = encoder
        parsers = {} if encoder is None else encoder.example_spec()
        self._example_spec = {
            column: parsers.get(column) or raw_types.example_parser(raw_type)
            for column, raw_type in schema.columns.items()
        }
        for name, width in schema.representations.items():
            self._example_spec[name] = tf.io.FixedLenFeature([width], tf.float32, [0.0] * width)

    @property
    def tasks(self) -> list[str]:
        """Tasks that are predicted; none for representations and items."""
        return []

    @property
    def auxiliary_tasks(self) -> list[str]:
        """Tasks that the model was trained for and the export does not answer."""
        return []

    @property
    def sides(self) -> Mapping[str, str]:
        """Side of each column and representation of a request, where it is told."""
        return {}

    @property
    def field_groups(self) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """Layer -> name -> fields that its weights read together; none where no weights do."""
        return {}

    @property
    def vocabulary(self) -> tuple[list[str], list[int]]:
        """Keys and ids of the lookup table in the graph; empty where there is none."""
        return ([], []) if self._encoder is None else self._encoder.vocabulary

    @abc.abstractmethod
    def trained(self, rows: GoldenRows) -> dict[str, np.ndarray]:
        """Outputs of the trained Keras model for some rows, by name, each (B, ...)."""

    @abc.abstractmethod
    def expected(self, rows: GoldenRows) -> dict[str, np.ndarray]:
        """Outputs of the model with the tables of the export, otherwise as `trained`.

        They are computed by the model itself, on rows that were encoded as for training.
        """

    @abc.abstractmethod
    def roundings(self, rows: GoldenRows) -> dict[str, Rounding]:
        """What rounding may make of the outputs that are numbers, see `rounding_bound`."""

    def magnitudes(self, rows: GoldenRows) -> dict[str, np.ndarray]:
        """Sums of the terms' magnitudes where a row's values do not tell them: `Evaluation`."""
        return {}

    def decided(self, rows: GoldenRows) -> GoldenRows:
        """The rows whose answer does not hang on rounding; all of them where numbers are asked."""
        return rows

    @abc.abstractmethod
    def run(self, raw: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """Outputs of B raw rows: columns as `Encoder.raw_signature` says, and representations."""

    def signatures(self) -> list[Signature]:
        """All signatures of the export."""
        examples = tf.TensorSpec([None], tf.string, name="examples")
        return [
            Signature("serving_default", self._from_examples, examples),
            Signature("predict", self._from_tensors, self.schema.tensor_specs()),
        ]

    def golden(
        self,
        rows: GoldenRows,
        scores: Mapping[str, np.ndarray],
        roundings: Mapping[str, Rounding] | None = None,
    ) -> list[GoldenRequest]:
        """Requests for some rows with the outputs that every signature must give.

        Args:
            rows: The rows.
            scores: What `expected` gave.
            roundings: What `roundings` gave; asked anew when absent.
        """
        roundings = self.roundings(rows) if roundings is None else roundings
        columns = self.golden_columns(rows)
        stored = {name: rows.representations[name][:, :-1] for name in self.schema.representations}
        examples = np.array(self.schema.examples(columns, stored), object)
        tensors = self.schema.tensors(columns, stored)
        allowed = {name: rounding.allowed(scores[name]) for name, rounding in roundings.items()}
        return [
            GoldenRequest("serving_default", {"examples": examples}, scores, allowed),
            GoldenRequest("predict", tensors, scores, allowed),
        ]

    def golden_columns(self, rows: GoldenRows) -> Mapping[str, Any]:
        """The rows' columns; a subclass may ask for more than the encoder does."""
        return rows.columns

    def write(self, folder: Path, more: Sequence[Signature] = ()) -> None:
        """Writes the SavedModel, with more signatures where there are some."""
        resources = [] if self._encoder is None else [self._encoder]
        write_archive(folder, [*self.signatures(), *more], resources)

    @cached_property
    def of_examples(self) -> Any:
        """(B,) serialized examples -> outputs; one function in the graph, whoever calls it."""
        spec = [tf.TensorSpec([None], tf.string)]
        return tf.function(
            lambda e: self._run(self.parsed(e)), input_signature=spec, autograph=False
        )

    @cached_property
    def _run(self) -> Any:
        """`run` as one function in the graph, traced once for all signatures that call it."""
        return tf.function(self.run, autograph=False)

    def parsed(self, examples: tf.Tensor) -> dict[str, Any]:
        """(B,) serialized `tf.Example`s -> raw rows."""
        spec = _with_shared_defaults(self._example_spec)
        return self._refusing(dict(tf.io.parse_example(examples, spec)))

    def raw_rows(self, request: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        """Tensors by request name -> raw rows."""
        raw: dict[str, Any] = {c: request[n] for c, n in self.schema.names.items() if n in request}
        for column, raw_type in self.schema.columns.items():
            if column in raw and raw_type.kind in ("texts", "numbers"):
                raw[column] = tf.RaggedTensor.from_tensor(raw[column], row_splits_dtype=tf.int64)
        return self._refusing(raw)

    def _refusing(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Raw rows whose stored representations are finite, which an op of the graph checks."""
        for name in self.schema.representations:
            if name in raw:
                raw[name] = finite_vectors(raw[name], f"Representations {name}")
        return raw

    def encoded(self, raw: Mapping[str, Any]) -> EncodedBatch:
        """Raw rows as the model reads them."""
        if self._encoder is None:
            return {}
        batch: EncodedBatch = self._encoder({c: raw[c] for c in self._encoder.raw_types})
        return batch

    def _from_examples(self, examples: tf.Tensor) -> Mapping[str, tf.Tensor]:
        outputs: Mapping[str, tf.Tensor] = self.of_examples(examples)
        return outputs

    def _from_tensors(self, request: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        outputs: Mapping[str, tf.Tensor] = self._run(self.raw_rows(with_equal_rows(request)))
        return outputs


def with_equal_rows(
    request: Mapping[str, tf.Tensor], rows: tf.Tensor | None = None, *, one: bool = False
) -> dict[str, tf.Tensor]:
    """A request whose tensors have as many rows as each other, which an op of the graph checks.

    Unequal ones would be broadcast, or read past a row's end, to wrong scores.

    Args:
        request: Name -> (B, ...).
        rows: B, () int32; that of the first tensor when absent.
        one: Whether one row is allowed beside B.
    """
    if not request:
        return {}
    names = list(request)
    sizes = _row_counts([tf.convert_to_tensor(request[name]) for name in names])
    wanted = sizes[0] if rows is None else rows
    fits = tf.equal(sizes, wanted)
    if one:
        fits |= tf.equal(sizes, 1)
    told = f"The inputs must have equal numbers of rows{' (or one)' if one else ''}: "
    check = graph_assert(
        tf.reduce_all(fits), [told + ", ".join(names), sizes, "expected", wanted], len(names)
    )
    with tf.control_dependencies([] if check is None else [check]):
        return dict(zip(names, tf.identity_n([request[name] for name in names]), strict=True))


def _row_counts(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """First dimension of each tensor of known rank, (number of tensors,) int32.

    A request has a hundred inputs, and each op takes its time in every call: one for each type.
    """
    of_type: dict[tf.DType, list[int]] = {}
    for i, tensor in enumerate(tensors):
        of_type.setdefault(tensor.dtype, []).append(i)
    shapes: list[tf.Tensor] = []
    first = np.zeros(len(tensors), np.int32)  # where a tensor's shape begins among all
    held = 0
    for places in of_type.values():
        shapes += tf.shape_n([tensors[i] for i in places])
        for i in places:
            first[i] = held
            held += tensors[i].shape.rank
    return tf.gather(tf.concat(shapes, axis=0), first)


def _with_shared_defaults(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Parsers whose defaults are constants of the graph, one for all columns of equal ones.

    `tf.io.parse_example` makes three nodes for each column whose default is none.
    """
    made: dict[str, tf.Tensor] = {}

    def default(parser: tf.io.FixedLenFeature) -> tf.Tensor:
        key = f"{parser.dtype.name} {parser.shape} {parser.default_value}"
        if key not in made:
            made[key] = tf.constant(parser.default_value, parser.dtype, parser.shape)
        return made[key]

    return {
        column: parser._replace(default_value=default(parser))
        if isinstance(parser, tf.io.FixedLenFeature) and parser.default_value is not None
        else parser
        for column, parser in spec.items()
    }


def with_presence(representation: tf.Tensor) -> tf.Tensor:
    """(B, d) -> (B, d + 1): the last column is 1 where any element is not zero."""
    present = tf.reduce_any(tf.not_equal(representation, 0.0), axis=1, keepdims=True)  # (B, 1)
    return tf.concat([representation, tf.cast(present, representation.dtype)], axis=1)
