"""TFRecord files of serialized `tf.train.Example`, plain or gzipped."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lfm4ads_tf.data.sources.files import check_columns, check_file, is_gzip, no_rows, open_bytes
from lfm4ads_tf.errors import UserError

_BATCH = 8192
_FRAME_BYTES = 8 + 4 + 4  # the length, its checksum, and the checksum of the data
_SNIFFED_RECORDS = 10_000
_ARROW = {"bytes_list": pa.binary(), "int64_list": pa.int64(), "float_list": pa.float32()}


def sniff_kinds(paths: Sequence[Path], columns: Sequence[str]) -> dict[str, str]:
    """Finds the stored kind of features from the first records of each file.

    A feature may be absent from some records and files, because an absent feature is how an
    Example says that a value is missing.

    Args:
        paths: The files.
        columns: The features to look for.

    Returns:
        feature -> "bytes_list", "int64_list" or "float_list".

    Raises:
        UserError: A file is missing, empty, truncated or holds something else, no file has a
            record, or a feature is in none of the first 10,000 records of any file.
    """
    kinds: dict[str, str] = {}
    seen: set[str] = set()
    any_record = False
    for path in paths:
        check_file(path)
        records = 0
        for index, record in enumerate(_records(path)):
            example = _parse_one(path, index, record)
            records += 1
            features = example.features.feature
            seen.update(features)
            for name in columns:
                if name not in kinds and name in features:
                    kind = features[name].WhichOneof("kind")
                    if kind:
                        kinds[name] = kind
            if len(kinds) == len(columns) or records == _SNIFFED_RECORDS:
                break
        any_record = any_record or records > 0
    if not any_record:
        raise no_rows(paths[0])
    # A feature that is present but never holds a value has no kind: any kind reads as missing.
    for name in seen.intersection(columns):
        kinds.setdefault(name, "bytes_list")
    check_columns(paths[-1], [c for c in columns if c not in kinds], sorted(seen))
    return kinds


def read_tfrecord(path: Path, kinds: Mapping[str, str]) -> pa.Table:
    """Reads features of a TFRecord file by batched `tf.io.parse_example`.

    Args:
        path: The file; gzip is detected from its content.
        kinds: feature -> stored kind, from `sniff_kinds`.

    Returns:
        A table with one list column per feature (binary, int64 or float32 values), in the order
        of `kinds`; an absent feature is an empty list.

    Raises:
        UserError: The file has no record, is truncated or corrupt, or a feature changes its kind;
            the message names the record.
    """
    import tensorflow as tf

    dtypes = {"bytes_list": tf.string, "int64_list": tf.int64, "float_list": tf.float32}
    spec = {
        f"column_{i}": tf.io.RaggedFeature(dtypes[kind], value_key=name, row_splits_dtype=tf.int64)
        for i, (name, kind) in enumerate(kinds.items())
    }
    chunks: list[list[pa.Array]] = [[] for _ in kinds]
    records = read_bytes = 0
    try:
        for batch in _dataset(path).batch(_BATCH).prefetch(2):
            records += int(batch.shape[0])
            read_bytes += int(tf.reduce_sum(tf.strings.length(batch)))
            parsed = tf.io.parse_example(batch, spec)
            for i, kind in enumerate(kinds.values()):
                ragged = parsed[f"column_{i}"]
                offsets = pa.array(ragged.row_splits.numpy(), pa.int32())
                values = pa.array(ragged.values.numpy(), _ARROW[kind])
                chunks[i].append(pa.ListArray.from_arrays(offsets, values))
    except tf.errors.OpError as error:
        raise _explain(path, kinds, error) from error
    # TensorFlow takes a file that ends inside a record's header, or inside its gzip stream, for
    # a complete one.
    if read_bytes + records * _FRAME_BYTES != _content_bytes(path):
        raise _broken_record(path, records, "the file ends inside the record")
    if not records:
        raise no_rows(path)
    types = [pa.list_(_ARROW[kind]) for kind in kinds.values()]
    columns = [pa.chunked_array(c, type=t) for c, t in zip(chunks, types, strict=True)]
    return pa.Table.from_arrays(columns, names=list(kinds))


def _dataset(path: Path) -> Any:
    import tensorflow as tf

    return tf.data.TFRecordDataset(str(path), compression_type="GZIP" if is_gzip(path) else "")


def _records(path: Path) -> Iterator[bytes]:
    """Yields the records of a file; a broken one raises an error that names its index."""
    import tensorflow as tf

    index = 0
    try:
        for record in _dataset(path).as_numpy_iterator():
            yield record
            index += 1
    except tf.errors.OpError as error:
        raise _broken_record(path, index, error.message) from error


def _broken_record(path: Path, index: int, found: str) -> UserError:
    return UserError(
        f"Record {index} (counted from 0) of '{path}' is truncated or corrupt.",
        received=found,
        fix="copy or write the file again; it must be a TFRecord file, plain or gzipped.",
    )


def _content_bytes(path: Path) -> int:
    """Returns the size of the content; a gzip stream is read to its checksum."""
    if not is_gzip(path):
        return path.stat().st_size
    size = 0
    try:
        with open_bytes(path) as stream:
            while block := stream.read(1 << 20):
                size += len(block)
    except (EOFError, zlib.error, OSError) as error:
        raise UserError(
            f"File '{path}' is truncated or corrupt.",
            received=error,
            fix="copy or write the file again.",
        ) from error
    return size


def _parse_one(path: Path, index: int, record: bytes) -> Any:
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        return tf.train.Example.FromString(record)
    except DecodeError as error:
        raise UserError(
            f"Record {index} (counted from 0) of '{path}' is not a serialized tf.train.Example.",
            received=f"{len(record)} bytes starting with {record[:20]!r}",
            fix="write each row as tf.train.Example(...).SerializeToString().",
        ) from error


def _explain(path: Path, kinds: Mapping[str, str], error: Exception) -> UserError:
    """Reads a file that failed record by record to say which one is wrong."""
    try:
        for index, record in enumerate(_records(path)):
            features = _parse_one(path, index, record).features.feature
            for name, kind in kinds.items():
                found = features[name].WhichOneof("kind") if name in features else None
                if found not in (None, kind):
                    return UserError(
                        f"Feature '{name}' changes its kind at record {index} (counted from 0) "
                        f"of '{path}'.",
                        received=f"{found}, after {kind} in the first records",
                        fix="write the feature with one kind in all records and files.",
                    )
    except UserError as found_error:
        return found_error
    return UserError(
        f"File '{path}' cannot be read as TFRecord of tf.train.Example.",
        received=getattr(error, "message", error),
        fix="copy or write the file again.",
    )


def feature_names(path: Path) -> list[str]:
    """Names of the features in the first records of a file, sorted.

    Raises:
        UserError: The file is missing, empty or truncated.
    """
    check_file(path)
    seen: set[str] = set()
    for index, record in enumerate(_records(path)):
        seen.update(_parse_one(path, index, record).features.feature)
        if index + 1 == _SNIFFED_RECORDS:
            break
    if not seen:
        raise no_rows(path)
    return sorted(seen)
