"""One loaded version of a model: its session, its signatures, and the rules of each API."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import prediction_log_pb2

from lfm4ads_tf.export.local_server.messages import SerializedInput, example_bytes
from lfm4ads_tf.export.local_server.status_error import StatusError, invalid
from lfm4ads_tf.export.local_server.tensor_codec import decode_tensor
from lfm4ads_tf.export.warmup import MAX_RECORDS, WARMUP_FILE

DEFAULT_SIGNATURE = "serving_default"
"""The signature of a request that names none."""

PREDICT = "tensorflow/serving/predict"
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"

_MAX_CALLABLES = 64
_CLASSES, _SCORES, _INPUTS, _OUTPUTS = "classes", "scores", "inputs", "outputs"


class RuntimeCounter(Protocol):
    """What the time of a session's run is added to."""

    runtime_s: float


@dataclass(frozen=True)
class Classified:
    """The result of Classify.

    Attributes:
        labels: bytes (B, C), or None when the signature has no `classes`.
        scores: float32 (B, C), or None when the signature has no `scores`.
    """

    labels: np.ndarray | None
    scores: np.ndarray | None


class Servable:
    """A SavedModel in a graph and session of its own, loaded as TensorFlow Serving loads it.

    Its methods may be called by many threads. They check a request as TensorFlow Serving's own
    sources do: `predict_util`, `classifier`, `regressor` and `multi_inference`.

    Args:
        path: Folder with `saved_model.pb`.

    Raises:
        StatusError, tf.errors.OpError, ValueError: It cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        graph = tf.Graph()
        with graph.as_default():
            session = tf.compat.v1.Session(graph=graph)
            try:
                meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], str(path))
            except OSError as error:
                session.close()
                raise StatusError(grpc.StatusCode.NOT_FOUND, str(error)) from error
            except BaseException:
                session.close()
                raise
        self._path = path
        self._session = session
        self._signatures = dict(meta_graph.signature_def)
        self._callables: dict[tuple[tuple[str, ...], tuple[str, ...]], Callable[..., Any]] = {}
        self._callables_lock = threading.Lock()

    @property
    def signatures(self) -> Mapping[str, Any]:
        """Name -> SignatureDef."""
        return self._signatures

    def close(self) -> None:
        """Frees the session; no request may be under way."""
        self._callables.clear()
        self._session.close()

    def warm_up(self) -> int:
        """Replays the warm-up requests of the version folder.

        Returns:
            The number of requests.

        Raises:
            StatusError, tf.errors.OpError: The file is damaged or a request fails, with which
                the real server gives the version up too.
        """
        path = self._path / WARMUP_FILE
        if not path.exists():
            return 0
        clock, count = _NoClock(), 0
        for record in _records(path):
            count += 1
            if count > MAX_RECORDS:
                raise invalid(f"Number of warm-up records exceeds {MAX_RECORDS} in {path}")
            try:
                log = prediction_log_pb2.PredictionLog.FromString(record)
            except DecodeError as error:
                raise invalid(f"Failed to parse warm-up record {count} of {path}") from error
            self._replay(log, clock)
        return count

    def _replay(self, log: Any, clock: RuntimeCounter) -> None:
        kind = log.WhichOneof("log_type")
        if kind is None:
            return
        if kind == "session_run_log":
            raise StatusError(
                grpc.StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warm-up: {kind}"
            )
        request = getattr(log, kind).request
        if kind == "predict_log":
            name = request.model_spec.signature_name
            self.predict(name, request.inputs, request.output_filter, clock)
            return
        serialized = SerializedInput.FromString(request.input.SerializeToString())
        examples = example_bytes(serialized)
        if kind == "classify_log":
            self.classify(request.model_spec.signature_name, examples, clock)
        elif kind == "regress_log":
            self.regress(request.model_spec.signature_name, examples, clock)
        else:
            self.multi_inference(request.tasks, examples, clock)

    # Predict

    def predict(
        self,
        signature_name: str,
        inputs: Mapping[str, Any],
        output_filter: Sequence[str],
        clock: RuntimeCounter,
    ) -> dict[str, np.ndarray]:
        """Runs a signature on tensors.

        Args:
            signature_name: Empty for `serving_default`.
            inputs: Name of an input -> TensorProto, or its array.
            output_filter: Outputs to compute; empty for all.
            clock: Gets the time of the session's run.

        Returns:
            Output -> array.

        Raises:
            StatusError: The request does not fit the signature.
            tf.errors.OpError: An op of the graph failed.
        """
        name = signature_name or DEFAULT_SIGNATURE
        signature = self._signatures.get(name)
        if signature is None:
            raise StatusError(
                grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.'
            )
        if signature.method_name not in (PREDICT, CLASSIFY, REGRESS):
            raise StatusError(
                grpc.StatusCode.INTERNAL,
                "Expected prediction signature method_name to be one of "
                f"{{{PREDICT}, {CLASSIFY}, {REGRESS}}}. Was: {signature.method_name}",
            )
        feeds = _feeds(signature, inputs)
        names = list(output_filter)
        for position, output in enumerate(names):
            if output not in signature.outputs:
                raise invalid(
                    f"output tensor alias not found in signature: {output} "
                    f"Outputs expected to be in the set {_set(signature.outputs)}."
                )
            if output in names[:position]:
                raise invalid(f"duplicate output tensor alias: {output}")
        names = names or sorted(signature.outputs)
        arrays = self._run(feeds, [signature.outputs[output].name for output in names], clock)
        return dict(zip(names, arrays, strict=True))

    # Classify and Regress

    def classify(
        self, signature_name: str, examples: Sequence[bytes], clock: RuntimeCounter
    ) -> Classified:
        """Runs a signature with the method name of Classify.

        Args:
            signature_name: Empty for `serving_default`.
            examples: Serialized `tf.Example`s.
            clock: Gets the time of the session's run.

        Raises:
            StatusError: The signature is none for Classify, or there is no example.
            tf.errors.OpError: An op of the graph failed.
        """
        signature = self._method_signature(signature_name, CLASSIFY, "classification")
        feed, fetches = _classification_tensors(signature)
        outputs = self._run_examples(feed, list(fetches.values()), examples, clock)
        return _classified(fetches, outputs, len(examples))

    def regress(
        self, signature_name: str, examples: Sequence[bytes], clock: RuntimeCounter
    ) -> np.ndarray:
        """Runs a signature with the method name of Regress.

        Args:
            signature_name: Empty for `serving_default`.
            examples: Serialized `tf.Example`s.
            clock: Gets the time of the session's run.

        Returns:
            float32 (B,).

        Raises:
            StatusError: The signature is none for Regress, or there is no example.
            tf.errors.OpError: An op of the graph failed.
        """
        signature = self._method_signature(signature_name, REGRESS, "regression")
        feed, fetch = _regression_tensors(signature)
        outputs = self._run_examples(feed, [fetch], examples, clock)
        return _regressed(outputs[fetch], len(examples))

    def multi_inference(
        self, tasks: Sequence[Any], examples: Sequence[bytes], clock: RuntimeCounter
    ) -> list[Classified | np.ndarray]:
        """Runs several signatures for Classify and Regress on the same examples, in one run.

        Args:
            tasks: `InferenceTask`s.
            examples: Serialized `tf.Example`s.
            clock: Gets the time of the session's run.

        Returns:
            What `classify` or `regress` returns, per task.

        Raises:
            StatusError: The tasks name different models, a signature twice, another method, or
                signatures with different input tensors; or there is no example.
            tf.errors.OpError: An op of the graph failed.
        """
        model, feed = "", ""
        seen: set[str] = set()
        wanted: list[dict[str, str] | str] = []
        for task in tasks:
            if not task.model_spec.name:
                raise invalid("Found ModelSpec with an empty model name.")
            model = model or task.model_spec.name
            if task.model_spec.name != model:
                raise invalid(
                    "All ModelSpecs in a MultiInferenceRequest must access the same model name."
                )
            name = task.model_spec.signature_name or DEFAULT_SIGNATURE
            if name in seen:
                raise invalid(f"Duplicate evaluation of signature: {name}")
            seen.add(name)
            signature = self._signatures.get(name)
            if signature is None:
                raise invalid(f"Requested signature not found in model graph: {name}")
            fetched: dict[str, str] | str
            if task.method_name == CLASSIFY:
                _check_method(signature, CLASSIFY, "classification")
                tensor, fetched = _classification_tensors(signature)
            elif task.method_name == REGRESS:
                _check_method(signature, REGRESS, "regression")
                tensor, fetched = _regression_tensors(signature)
            else:
                raise StatusError(
                    grpc.StatusCode.UNIMPLEMENTED,
                    f"Unsupported signature method_name: {task.method_name}",
                )
            feed = feed or tensor
            if tensor != feed:
                raise invalid("Input tensor must be the same for all Signatures.")
            wanted.append(fetched)
        fetches: list[str] = []
        for fetched in wanted:
            fetches += [fetched] if isinstance(fetched, str) else fetched.values()
        outputs = self._run_examples(feed, fetches, examples, clock)
        return [
            _regressed(outputs[fetched], len(examples))
            if isinstance(fetched, str)
            else _classified(fetched, outputs, len(examples))
            for fetched in wanted
        ]

    def _method_signature(self, signature_name: str, method: str, kind: str) -> Any:
        name = signature_name or DEFAULT_SIGNATURE
        signature = self._signatures.get(name)
        if signature is None:
            raise invalid(f"No signature was found with the name: {name}")
        _check_method(signature, method, kind)
        return signature

    def _run_examples(
        self, feed: str, fetches: Sequence[str], examples: Sequence[bytes], clock: RuntimeCounter
    ) -> dict[str, np.ndarray]:
        if not examples:
            raise invalid("Input is empty.")
        array = np.empty(len(examples), object)
        array[:] = examples
        names = sorted(set(fetches))
        return dict(zip(names, self._run({feed: array}, names, clock), strict=True))

    # Session

    def _run(
        self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], clock: RuntimeCounter
    ) -> list[np.ndarray]:
        """Runs the session: tensor name -> array, to one array per fetched tensor name."""
        distinct = tuple(dict.fromkeys(fetches))  # outputs may share a tensor
        run = self._callable(tuple(feeds), distinct)
        start = time.perf_counter()
        try:
            values = run(*feeds.values())
        except UnicodeDecodeError as error:
            # An op failed and its message quotes what it was fed, which is no UTF-8: TensorFlow's
            # Python layer loses the code over it. An op that quotes its input calls it invalid.
            raise invalid(error.object.decode("utf-8", errors="replace")) from error
        finally:
            clock.runtime_s += time.perf_counter() - start
        by_name = dict(zip(distinct, values, strict=True))
        return [np.asarray(by_name[fetch]) for fetch in fetches]

    def _callable(self, feeds: tuple[str, ...], fetches: tuple[str, ...]) -> Callable[..., Any]:
        """A prepared run, kept: it costs a fifth of `Session.run`.

        The session's own `make_callable` casts and checks what is fed in Python. This one leaves
        it to the runtime, whose codes and messages are those of the real server.
        """
        key = (feeds, fetches)
        prepared = self._callables.get(key)
        if prepared is None:
            options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
            prepared = self._session._make_callable_from_options(options)
            with self._callables_lock:
                if len(self._callables) >= _MAX_CALLABLES:  # filters of outputs have no end
                    self._callables.pop(next(iter(self._callables)))
                self._callables[key] = prepared
        return prepared


class _NoClock:
    runtime_s = 0.0


def _records(path: Path) -> Iterator[bytes]:
    try:
        yield from tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    except tf.errors.DataLossError as error:
        raise StatusError(
            grpc.StatusCode.DATA_LOSS,
            f"{error.message}. Verify that {path} is in TFRecord format.",
        ) from error


def _set(names: Collection[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _feeds(signature: Any, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Tensor name -> array, checked against the signature."""
    declared, given = set(signature.inputs), set(inputs)
    defaults = signature.defaults
    if given - declared or (declared - given and not defaults):
        raise invalid(
            f"input size does not match signature: {len(given)}!={len(declared)} "
            f"len({_set(given)}) != len({_set(declared)}). "
            f"Sent extra: {_set(given - declared)}. "
            f"Missing but required: {_set(declared - given)}."
        )
    feeds = {}
    for name, info in signature.inputs.items():
        if name not in given and name not in defaults:
            raise invalid(
                f"Signature input alias: {name}(feed name: {info.name}) not found in request and "
                "no default value provided."
            )
        value = inputs[name] if name in given else defaults[name]
        if isinstance(value, np.ndarray):
            array, dtype = value, tf.as_dtype(value.dtype).as_datatype_enum
        else:
            decoded, dtype = decode_tensor(value), value.dtype
            if decoded is None:
                raise invalid(f"tensor parsing error: {name}")
            array = decoded
        if dtype != info.dtype:
            raise invalid(
                f"Type mismatch of input '{name}': actual {_dtype_name(dtype)} vs. expect "
                f"{_dtype_name(info.dtype)}"
            )
        _check_shape(name, info.tensor_shape, array.shape)
        feeds[info.name] = array
    return feeds


def _check_shape(name: str, declared: Any, given: tuple[int, ...]) -> None:
    if declared.unknown_rank:
        return
    sizes = [dim.size for dim in declared.dim]
    if len(sizes) != len(given) or any(
        size not in (-1, got) for size, got in zip(sizes, given, strict=True)
    ):
        shown = ",".join("?" if size < 0 else str(size) for size in sizes)
        raise invalid(
            f"Shape mismatch of input '{name}': actual [{','.join(map(str, given))}] vs. expect "
            f"[{shown}]"
        )


def _dtype_name(number: int) -> str:
    return str(tf.as_dtype(number).name)


def _check_method(signature: Any, method: str, kind: str) -> None:
    if signature.method_name != method:
        raise invalid(
            f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}"
        )
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")


def _classification_tensors(signature: Any) -> tuple[str, dict[str, str]]:
    """The input's tensor name, and output (`classes`, `scores`) -> tensor name."""
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    feed = _input_tensor(signature, "classification")
    fetches = {k: signature.outputs[k].name for k in (_CLASSES, _SCORES) if k in signature.outputs}
    if not fetches:
        raise StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f'Expected classification signature outputs to contain at least one of "{_CLASSES}" '
            f'or "{_SCORES}". Outputs were: {_set(signature.outputs)}',
        )
    return feed, fetches


def _regression_tensors(signature: Any) -> tuple[str, str]:
    """The tensor names of the input and the output."""
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    feed = _input_tensor(signature, "regression")
    if _OUTPUTS not in signature.outputs:
        raise StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f'No regression outputs found in SignatureDef: "{_OUTPUTS}" is not in '
            f"{_set(signature.outputs)}",
        )
    return feed, str(signature.outputs[_OUTPUTS].name)


def _input_tensor(signature: Any, kind: str) -> str:
    if _INPUTS not in signature.inputs:
        raise StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f'No {kind} inputs found in SignatureDef: "{_INPUTS}" is not in '
            f"{_set(signature.inputs)}",
        )
    return str(signature.inputs[_INPUTS].name)


def _classified(
    fetches: Mapping[str, str], outputs: Mapping[str, np.ndarray], rows: int
) -> Classified:
    arrays = {name: outputs[tensor] for name, tensor in fetches.items()}
    for name, array in arrays.items():
        if array.ndim != 2:
            raise invalid(
                f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)}"
            )
        if array.dtype != (object if name == _CLASSES else np.float32):
            kind = "DT_STRING" if name == _CLASSES else "DT_FLOAT"
            raise invalid(f"Expected {name} Tensor of {kind}. Got: {array.dtype}")
        if len(array) != rows:
            raise invalid(f"Expected {name} output batch size of {rows}. Got: {len(array)}")
    labels, scores = arrays.get(_CLASSES), arrays.get(_SCORES)
    if labels is not None and scores is not None and labels.shape != scores.shape:
        raise invalid(
            "Tensors class and score should match in dim_size(1). "
            f"Got {labels.shape[1]} vs. {scores.shape[1]}"
        )
    return Classified(labels, scores)


def _regressed(array: np.ndarray, rows: int) -> np.ndarray:
    if not (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{list(array.shape)}"
        )
    if len(array) != rows:
        raise invalid(f"Input batch size did not match output batch size: {rows} vs. {len(array)}")
    if array.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT. Got: {array.dtype}")
    return array.reshape(rows)  # (B,)
