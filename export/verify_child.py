"""Loads one SavedModel with TensorFlow and NumPy alone, and proves it. Run by `export/verify.py`.

This file is started by its path in a process of its own and imports nothing of this project: what
it can load and run, a server without our code can load and run.

    python verify_child.py VERSION_FOLDER WARMUP_JSON REPORT_JSON
    python verify_child.py --serve
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":
    # Importing one of these fails from here on: what is loaded below needs none of them.
    # (TensorFlow imports Keras only to offer it as `tf.keras`, and does without.)
    for package in ("lfm4ads_tf", "tf_keras", "keras", "tensorflow_serving"):
        sys.modules[package] = None  # type: ignore[assignment]

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow.core.framework import tensor_pb2  # noqa: E402
from tensorflow.core.protobuf import (  # noqa: E402
    meta_graph_pb2,
    saved_model_pb2,
    trackable_object_graph_pb2,
)
from tensorflow.python.framework import op_def_registry  # noqa: E402

SERVE = "--serve"
SCHEMA = 2  # of contract.json and golden.npz
EPS = float(np.finfo(np.float32).eps)
ROUNDINGS = 4
"""Roundings of a value itself: the last sum, the bias, the sigmoid, the conversion."""
# Registered in every build, but their kernels call back into the Python process that made them.
PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
METHODS = {
    "classify": "tensorflow/serving/classify",
    "regress": "tensorflow/serving/regress",
}  # the others are predict
PREDICT = "tensorflow/serving/predict"
INITIALIZER = "__saved_model_init_op"  # a signature of TensorFlow's own
LATENCY_CALLS = 10
ASSERTION = "assertion failed: "
TIMED = ("serving_default", "predict", "rank")  # signatures whose latency is measured


class Refused(Exception):
    """The export must not be published; the message says why."""


Tensors = dict[str, np.ndarray]
TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Difference:
    """The largest difference between what was found and what was expected.

    Attributes:
        value: The largest one.
        share: The largest one, as a share of what is allowed there.
    """

    value: float = 0.0
    share: float = 0.0

    def joined(self, other: Difference) -> Difference:
        """The larger of both."""
        return Difference(max(self.value, other.value), max(self.share, other.share))


def allowed_difference(expected: np.ndarray, bound: np.ndarray | float, of: str) -> np.ndarray:
    """What another processor may make of a value.

    Float32 sums depend on the order in which they are summed. Before the last steps of a model two
    computations of one value may be `bound` apart. A probability p = sigmoid(z) follows its logit,
    dp = p (1 - p) dz; then `ROUNDINGS` more roundings of the value itself come on top, each of at
    most EPS times the value.

        of = "logit":  bound p (1 - p) + ROUNDINGS EPS p
        of = "value":  bound + ROUNDINGS EPS |v|

    Args:
        expected: Values.
        bound: What logit or value may differ, of the shape of `expected` or one that broadcasts.
        of: `logit` for probabilities, `value` for other numbers.

    Returns:
        float64 of the shape of `expected`.
    """
    values = np.where(np.isfinite(expected), expected, 0.0).astype(np.float64)
    factor = values * (1.0 - values) if of == "logit" else np.ones_like(values)
    return np.asarray(bound * factor + ROUNDINGS * EPS * np.abs(values) + TINY)


def vocabulary_sha256(keys: Iterable[bytes], ids: Iterable[int]) -> str:
    """Digest of a lookup table's entries, whatever their order.

    Args:
        keys: The keys, UTF-8.
        ids: The id of each key.
    """
    digest = hashlib.sha256()
    for key, value in sorted(zip(keys, ids, strict=True)):
        digest.update(len(key).to_bytes(8, "little") + key)
        digest.update(int(value).to_bytes(8, "little", signed=True))
    return digest.hexdigest()


def read_contract(folder: Path) -> dict[str, Any]:
    """What the exporter says the SavedModel is."""
    path = folder / "assets.extra" / "contract.json"
    if not path.exists():
        raise Refused("there is no contract (assets.extra/contract.json) to check against")
    try:
        contract = json.loads(path.read_text("utf-8"))
        schema = contract["schema"]
        if schema != SCHEMA:
            raise Refused(
                f"the contract has schema {schema!r}, and {SCHEMA} is what is known here: it comes "
                "from another version of this project; export the model again"
            )
        _ = contract["kind"].startswith, [task.encode for task in contract["tasks"]]
        _ = [contract[key].items for key in ("columns", "representations")]
        _ = [list(contract[key]) for key in ("user_columns", "item_columns")]
        _ = contract["variables_sha256"].encode
        _ = [
            (s["method"], s["inputs"].items, s["outputs"].items)
            for s in contract["signatures"].values()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"the contract cannot be read ({_first_line(error)})") from error
    return dict(contract)


def read_golden(
    folder: Path,
) -> tuple[dict[str, Tensors], dict[str, Tensors], dict[str, Tensors]]:
    """Requests per signature, the outputs expected of some of them, and what these may differ."""
    path = folder / "assets.extra" / "golden.npz"
    if not path.exists():
        raise Refused("there is no golden file (assets.extra/golden.npz) to compare with")
    requests: dict[str, Tensors] = {}
    expected: dict[str, Tensors] = {}
    allowed: dict[str, Tensors] = {}
    try:
        with np.load(path) as arrays:
            for key in arrays.files:
                kind, signature, name = key.split("/", 2)
                if kind == "requests":
                    requests.setdefault(signature, {})[name] = array_of(arrays[key].tobytes())
                elif kind == "expected":
                    expected.setdefault(signature, {})[name] = arrays[key]
                elif kind == "allowed":
                    allowed.setdefault(signature, {})[name] = arrays[key]
                else:
                    raise ValueError(f"unknown entry {key!r}")
    except Exception as error:
        raise Refused(f"the golden file cannot be read ({_first_line(error)})") from error
    if not requests or not all(len(v) for o in expected.values() for v in o.values()):
        raise Refused("the golden file holds no requests or no rows")
    for signature, outputs in expected.items():
        for name, values in outputs.items():
            if values.dtype.kind == "f":
                told = allowed.get(signature, {}).get(name)
                if told is None or told.shape != values.shape or not np.isfinite(told).all():
                    raise Refused(
                        f"the golden file does not tell what '{name}' of '{signature}' may differ"
                    )
    return requests, expected, allowed


def array_of(serialized: bytes) -> np.ndarray:
    """A serialized TensorProto as an array; texts are objects."""
    return np.asarray(tf.make_ndarray(tensor_pb2.TensorProto.FromString(serialized)))


def read_graph(folder: Path) -> meta_graph_pb2.MetaGraphDef:
    """The graph that a server loads."""
    path = folder / "saved_model.pb"
    if not path.exists():
        raise Refused("cannot be loaded: there is no saved_model.pb")
    try:
        graphs = saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs
    except Exception as error:
        raise Refused(
            f"cannot be loaded: saved_model.pb is damaged ({_first_line(error)})"
        ) from error
    serving = [g for g in graphs if "serve" in g.meta_info_def.tags]
    if not serving:
        raise Refused("cannot be loaded: saved_model.pb has no graph tagged `serve`")
    return serving[0]


def check_ops(graph: meta_graph_pb2.MetaGraphDef) -> int:
    """Every op is one of TensorFlow's own; returns how many kinds there are."""
    library = graph.graph_def.library.function
    functions = {function.signature.name for function in library}
    nodes = [*graph.graph_def.node, *(n for f in library for n in f.node_def)]
    ops = {node.op for node in nodes} - functions
    foreign = sorted(op for op in ops if op in PYTHON_OPS or op_def_registry.get(op) is None)
    if foreign:
        raise Refused(f"ops that a stock server does not have: {', '.join(foreign)}")
    return len(ops)


def check_signatures(
    graph: meta_graph_pb2.MetaGraphDef, contract: Mapping[str, Any]
) -> dict[str, Any]:
    """The signatures are those of the contract, which has those of its kind; describes them."""
    signatures = {n: s for n, s in graph.signature_def.items() if n != INITIALIZER}
    named = contract["signatures"]
    for name in (*required_signatures(contract), *named):
        if name not in signatures:
            raise Refused(f"the signature '{name}' is missing")
        if name not in named:
            raise Refused(f"the signature '{name}' is not in the contract")
    for name in sorted(signatures.keys() - named.keys()):
        raise Refused(f"the signature '{name}' is not in the contract")
    for name, signature in signatures.items():
        wanted = named[name]
        method = METHODS.get(name.partition("_")[0], PREDICT)
        for source in (method, wanted["method"]):
            if signature.method_name != source:
                raise Refused(
                    f"the signature '{name}' has the method name '{signature.method_name}' instead "
                    f"of '{source}': a server would refuse its requests"
                )
        for end, tensors in (("inputs", signature.inputs), ("outputs", signature.outputs)):
            specs = {key: spec_of(info) for key, info in tensors.items()}
            if specs.keys() != wanted[end].keys():
                raise Refused(
                    f"'{name}' has the {end} {sorted(specs)}, not {sorted(wanted[end])} as the "
                    "contract says"
                )
            for key, spec in specs.items():
                if spec != wanted[end][key]:
                    raise Refused(
                        f"'{key}' of the {end} of '{name}' is {_plain(spec)}, not "
                        f"{_plain(wanted[end][key])} as the contract says"
                    )
    check_shared_input(signatures)
    return {name: describe(signature) for name, signature in sorted(signatures.items())}


def required_signatures(contract: Mapping[str, Any]) -> list[str]:
    """Signatures that an export of the contract's kind has at least."""
    names = ["serving_default", "predict"]
    kind = contract["kind"]
    if kind == "foundation" or kind.startswith("ranker_"):
        names += ["classify", "regress", *(f"regress_{task}" for task in contract["tasks"])]
        names += ["encode"]
    if kind.startswith("ranker_"):
        names += ["rank"]
    return names


def check_shared_input(signatures: Mapping[str, Any]) -> None:
    """Classify and regress read the same tensor: the server's MultiInference runs them as one."""
    inputs = {
        name: signature.inputs["inputs"].name
        for name, signature in signatures.items()
        if signature.method_name != PREDICT and "inputs" in signature.inputs
    }
    if len(set(inputs.values())) > 1:
        tensors = ", ".join(f"'{name}' reads {tensor}" for name, tensor in sorted(inputs.items()))
        raise Refused(f"classify and regress do not share one input: {tensors}")


def spec_of(info: meta_graph_pb2.TensorInfo) -> dict[str, Any]:
    """Type and shape of an end of a signature, as a contract writes them; None: of any rank."""
    shape = info.tensor_shape
    sizes = None if shape.unknown_rank else [None if d.size < 0 else d.size for d in shape.dim]
    return {"dtype": tf.as_dtype(info.dtype).name, "shape": sizes}


def describe(signature: meta_graph_pb2.SignatureDef) -> dict[str, Any]:
    """Method, and inputs and outputs of a signature, name -> type and shape."""
    ends = {"inputs": signature.inputs, "outputs": signature.outputs}
    told: dict[str, Any] = {"method": signature.method_name}
    for end, tensors in ends.items():
        told[end] = {name: _plain(spec_of(info)) for name, info in sorted(tensors.items())}
    return told


def lookup_tables(graph: meta_graph_pb2.MetaGraphDef) -> Iterator[tuple[list[bytes], list[int]]]:
    """Keys and ids of the tables from texts to integers that the graph fills from constants."""
    nodes = {node.name: node for node in graph.graph_def.node}
    # the import lies in a function; its arguments are the inputs of the node that calls it
    for function in graph.graph_def.library.function:
        arguments = [argument.name for argument in function.signature.input_arg]
        inside = {node.name: node for node in function.node_def}
        imports = [n for n in function.node_def if n.op.startswith("LookupTableImport")]
        if not imports:
            continue
        function_name = function.signature.name
        # `in` first: reading an attribute that is not there would add it to the node
        callers = [
            n for n in nodes.values() if "f" in n.attr and n.attr["f"].func.name == function_name
        ]
        for node in imports:
            for caller in callers:
                ends = []
                for name in node.input[1:3]:
                    held = inside.get(name.split(":")[0])
                    if held is None and name in arguments:
                        held = nodes.get(caller.input[arguments.index(name)].split(":")[0])
                    if held is not None and held.op == "Const":
                        ends.append(tf.make_ndarray(held.attr["value"].tensor).ravel())
                if len(ends) == 2 and ends[0].dtype == object and ends[1].dtype.kind == "i":
                    yield ends[0].tolist(), ends[1].tolist()


def check_vocabulary(graph: meta_graph_pb2.MetaGraphDef, wanted: str | None) -> None:
    """One of the graph's lookup tables is the training's, entry by entry."""
    if wanted is None:
        return
    sizes = {vocabulary_sha256(keys, ids): len(keys) for keys, ids in lookup_tables(graph)}
    if wanted not in sizes:
        tables = ", ".join(f"{digest[:12]} ({n} entries)" for digest, n in sizes.items())
        raise Refused(
            f"the vocabulary changed since training: no lookup table of the graph has the digest "
            f"{wanted[:12]}; there is {tables or 'none'}"
        )


def check_variables(folder: Path, wanted: str) -> int:
    """The variables are the exporter's, and none holds NaN or infinity; returns how many there are.

    A variable of zeros and minus infinities alone masks items and is sound.

    Args:
        folder: The version folder.
        wanted: Their digest, see `variables_digest`.
    """
    prefix = folder / "variables" / "variables"
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        names = variable_names(reader)
    except Exception as error:
        raise Refused(
            f"cannot be loaded: the variables are damaged ({_first_line(error)})"
        ) from error
    digest = hashlib.sha256()
    for key in sorted(shapes):
        try:
            values = np.asarray(reader.get_tensor(key))  # its checksum is compared as well
        except Exception as error:
            raise Refused(
                f"cannot be loaded: the variables are damaged: '{names.get(key, key)}' cannot be "
                f"read ({_first_line(error)})"
            ) from error
        add_to_digest(digest, key, values)
        if not dtypes[key].is_floating or np.isfinite(values).all():
            continue
        if np.all((values == 0) | np.isneginf(values)):
            continue
        bad = np.argwhere(~np.isfinite(values))[0]
        raise Refused(
            f"the variable '{names.get(key, key)}' holds {_kind_of(values)}, first at "
            f"{bad.tolist()} of {list(values.shape)}"
        )
    if digest.hexdigest() != wanted:
        raise Refused(
            "the variables are not those that the exporter wrote: their digest is "
            f"{digest.hexdigest()[:12]}, in the contract {wanted[:12]}; export the model again"
        )
    return sum(1 for key in shapes if dtypes[key] != tf.string)


def variables_digest(folder: Path) -> str:
    """SHA-256 of the names, types, shapes and bits of all variables of a version folder."""
    reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    digest = hashlib.sha256()
    for key in sorted(reader.get_variable_to_shape_map()):
        add_to_digest(digest, key, np.asarray(reader.get_tensor(key)))
    return digest.hexdigest()


def add_to_digest(digest: Any, key: str, values: np.ndarray) -> None:
    """Adds one variable to a digest."""
    digest.update(f"{key} {values.dtype} {values.shape}".encode())
    if values.dtype == object:
        for text in values.ravel():
            digest.update(len(text).to_bytes(8, "little") + text)
    else:
        digest.update(np.ascontiguousarray(values).tobytes())


def variable_names(reader: Any) -> dict[str, str]:
    """Key in the checkpoint -> name of the variable."""
    key = "_CHECKPOINTABLE_OBJECT_GRAPH"
    if not reader.has_tensor(key):
        return {}
    objects = trackable_object_graph_pb2.TrackableObjectGraph.FromString(reader.get_tensor(key))
    attributes = [a for node in objects.nodes for a in node.attributes]
    return {a.checkpoint_key: a.full_name or a.checkpoint_key for a in attributes}


class SessionModel:
    """A SavedModel as a server sees it: tensors fed and fetched by the names in SignatureDefs."""

    def __init__(self, folder: Path) -> None:
        began = time.perf_counter()
        with tf.Graph().as_default():
            self._session = tf.compat.v1.Session()
            try:
                loader = tf.compat.v1.saved_model.loader
                self._graph = loader.load(self._session, ["serve"], str(folder))
            except Exception as error:
                raise Refused(f"cannot be loaded: {_first_line(error)}") from error
        self.load_s = time.perf_counter() - began

    def __call__(self, signature: str, inputs: Tensors) -> Tensors:
        definition = self._graph.signature_def[signature]
        names = {key: info.name for key, info in definition.outputs.items()}
        feed = {definition.inputs[key].name: value for key, value in inputs.items()}
        return dict(self._session.run(names, feed))


class LoadedModel:
    """A SavedModel as Python loads it, through `tf.saved_model.load`."""

    def __init__(self, folder: Path) -> None:
        began = time.perf_counter()
        try:
            model = tf.saved_model.load(str(folder))
        except Exception as error:
            raise Refused(f"cannot be loaded: {_first_line(error)}") from error
        self.signatures = model.signatures
        self._model = model  # its variables live as long as it does
        self.load_s = time.perf_counter() - began

    def __call__(self, signature: str, inputs: Tensors) -> Tensors:
        run = self.signatures[signature]
        specs = run.structured_input_signature[1]
        fed = {key: tf.constant(value, specs[key].dtype) for key, value in inputs.items()}
        return {key: value.numpy() for key, value in run(**fed).items()}


def run(model: Any, signature: str, inputs: Tensors, what: str) -> Tensors:
    """Runs a request; its outputs must be finite."""
    try:
        outputs: Tensors = model(signature, inputs)
    except Exception as error:
        raise Refused(f"{what} fails on '{signature}': {_first_line(error)}") from error
    check_finite(signature, outputs, what)
    return outputs


def check_finite(signature: str, outputs: Tensors, what: str) -> None:
    """No output is NaN or infinite."""
    for name, values in sorted(outputs.items()):
        if values.dtype == object:  # text
            continue
        sound = np.isfinite(values) | is_padding(values, outputs)
        bad = np.flatnonzero(~sound.reshape(len(values), -1).all(axis=1))
        if len(bad):
            raise Refused(
                f"{what} gives {_kind_of(values[bad[0]])} as '{name}' on '{signature}', first in "
                f"row {bad[0]} of {len(values)}"
            )


def is_padding(values: np.ndarray, outputs: Tensors) -> np.ndarray:
    """Where a retrieval has no more items: -inf beside an empty key in `ids`."""
    keys = outputs.get("ids")
    if keys is None or keys.shape != values.shape:
        return np.zeros(values.shape, bool)
    return np.isneginf(values) & (keys.astype("S") == b"")


def compare_outputs(
    signature: str, outputs: Tensors, expected: Tensors, allowed: Tensors
) -> Difference:
    """Compares the outputs of a request with those of the Keras model.

    Args:
        signature: The signature.
        outputs: What it gave: output -> values.
        expected: What it must give; ids and texts exactly.
        allowed: What its numbers may differ, of the shapes of `expected`.

    Returns:
        The largest difference.

    Raises:
        Refused: They differ.
    """
    if outputs.keys() != expected.keys():
        raise Refused(
            f"'{signature}' has the outputs {sorted(outputs)}, not {sorted(expected)} as expected"
        )
    largest = Difference()
    for name, values in sorted(outputs.items()):
        wanted = expected[name]
        if wanted.dtype.kind == "S":
            compare_texts(name, signature, values, expected, outputs, allowed)
            continue
        if values.shape != wanted.shape or values.dtype != wanted.dtype:
            raise Refused(
                f"'{name}' of '{signature}' is {values.dtype} {values.shape}, expected "
                f"{wanted.dtype} {wanted.shape}"
            )
        if wanted.dtype.kind == "i":
            compare_ids(name, signature, values, wanted)
            continue
        padded = is_padding(values, outputs) & np.isneginf(wanted)
        unpadded = np.where(padded, 0.0, values.astype(np.float64))
        difference = np.abs(unpadded - np.where(padded, 0.0, wanted))
        limit = allowed[name].astype(np.float64)
        share = np.where(difference > 0, difference / np.maximum(limit, TINY), 0.0)
        share = np.where(np.isnan(share), np.inf, share)
        largest = largest.joined(
            Difference(float(difference.max(initial=0.0)), float(share.max(initial=0.0)))
        )
        if not share.max(initial=0.0) <= 1:
            place = np.unravel_index(int(np.argmax(share)), share.shape)
            what = "encoding differs" if signature == "encode" else "scores differ"
            raise Refused(
                f"the {what} from the Keras model's: '{name}' on '{signature}' by "
                f"{difference[place]:.3g} in row {int(place[0])} (allowed {limit[place]:.3g})"
            )
    return largest


def compare_ids(name: str, signature: str, values: np.ndarray, expected: np.ndarray) -> None:
    """Ids must be the training's."""
    differing = np.argwhere(values != expected)
    if len(differing):
        place = tuple(differing[0].tolist())
        raise Refused(
            f"'{signature}' gives feature '{name}' another id in row {place[0]}: expected "
            f"{expected[place]}, found {values[place]}; the vocabulary or the encoding changed "
            "since training"
        )


def compare_texts(
    name: str,
    signature: str,
    values: np.ndarray,
    expected: Tensors,
    outputs: Tensors,
    allowed: Tensors,
) -> None:
    """Texts must be the expected ones; keys with equal `scores` beside them may change places."""
    wanted = expected[name]
    if values.shape != wanted.shape:
        raise Refused(
            f"'{name}' of '{signature}' has the shape {values.shape}, expected {wanted.shape}"
        )
    texts = values.astype("S")
    ranked = name == "ids" and "scores" in expected
    for row, column in np.argwhere(texts != wanted):
        key = texts[row, column]
        same = False
        if ranked:
            score = float(outputs["scores"][row, column])
            place = np.flatnonzero(wanted[row] == key)
            # a key that is not expected at all may stand only where the list could end either way
            at = (row, place[0] if len(place) else -1)
            other, limit = float(expected["scores"][at]), float(allowed["scores"][at])
            same = abs(score - other) <= 2 * limit  # both scores may be off
        if not same:
            raise Refused(
                f"'{name}' on '{signature}' differs in row {row}, place {column}: {bytes(key)!r} "
                f"instead of {bytes(wanted[row, column])!r}"
            )


def latency(model: Any, signature: str, inputs: Tensors) -> float:
    """Median milliseconds of a request."""
    times = []
    for _ in range(LATENCY_CALLS):
        began = time.perf_counter()
        model(signature, inputs)
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def check_golden(
    contract: Mapping[str, Any],
    requests: Mapping[str, Tensors],
    expected: Mapping[str, Tensors],
) -> None:
    """There is a golden request for each signature, and what is served is compared."""
    for name, ends in contract["signatures"].items():
        if name not in requests:
            raise Refused(f"the golden file holds no request for the signature '{name}'")
        if requests[name].keys() != ends["inputs"].keys():
            raise Refused(
                f"the golden request for '{name}' has the inputs {sorted(requests[name])}, not "
                f"{sorted(ends['inputs'])} as the contract says"
            )
    for name in required_signatures(contract):
        if not expected.get(name):
            raise Refused(f"the golden file holds nothing to compare '{name}' with")


def verify(folder: Path, warmup: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that is checked; returns the report."""
    contract = read_contract(folder)
    requests, expected, allowed = read_golden(folder)
    graph = read_graph(folder)
    signatures = check_signatures(graph, contract)
    ops = check_ops(graph)
    check_golden(contract, requests, expected)
    check_vocabulary(graph, contract.get("vocabulary_sha256"))
    variables = check_variables(folder, contract["variables_sha256"])
    server = SessionModel(folder)
    for number, record in enumerate(warmup):
        inputs = {k: array_of(base64.b64decode(v)) for k, v in record["inputs"].items()}
        if record["signature"] not in signatures:
            raise Refused(f"warm-up record {number} asks for '{record['signature']}'")
        run(server, record["signature"], inputs, f"warm-up record {number}")
    # ids are compared first: a score that differs because of its ids is told by them
    order = sorted(contract["signatures"], key=lambda name: (name != "encode", name))
    largest = Difference()
    timings: dict[str, float] = {}
    for name in order:
        outputs = run(server, name, requests[name], "the golden request")
        if name in expected:
            largest = largest.joined(
                compare_outputs(name, outputs, expected[name], allowed.get(name, {}))
            )
        if name not in TIMED:
            continue
        rows = max(len(values) for values in requests[name].values())
        one = {key: value[:1] for key, value in requests[name].items()}
        timings[f"{name}, 1 row"] = latency(server, name, one)
        timings[f"{name}, {rows} rows"] = latency(server, name, requests[name])
    python = LoadedModel(folder)
    for name in ("serving_default", "predict"):  # what is called from Python too
        if name not in python.signatures:
            raise Refused(f"`tf.saved_model.load` finds no signature '{name}'")
        outputs = run(python, name, requests[name], "in Python, the golden request")
        largest = largest.joined(
            compare_outputs(name, outputs, expected[name], allowed.get(name, {}))
        )
    return {
        "tensorflow": tf.__version__,
        "signatures": signatures,
        "ops": ops,
        "variables": variables,
        "rows_compared": len(next(iter(expected["serving_default"].values()))),
        "warmup_records": len(warmup),
        "largest_difference": largest.value,
        "largest_share": largest.share,
        "load_s": server.load_s,
        "load_python_s": python.load_s,
        "latency_ms": timings,
    }


def _plain(spec: Mapping[str, Any]) -> str:
    shape = spec["shape"]
    if shape is None:
        return f"{spec['dtype']} of any rank"
    sizes = ["None" if size is None else str(size) for size in shape]
    return f"{spec['dtype']} ({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _kind_of(values: np.ndarray) -> str:
    return "NaN" if np.isnan(values).any() else "infinity"


def _first_line(error: Exception) -> str:
    """What an error says; of one in a graph, the check of the graph that failed."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    told = [line.strip() for line in lines if line.strip().startswith(ASSERTION)]
    return (told or lines)[0][:300]


def prove(folder: Path, warmup: Path, target: Path) -> None:
    """Writes the report; `refused` is null or the reason."""
    try:
        report = {"refused": None, **verify(folder, json.loads(warmup.read_text("utf-8")))}
    except Refused as refused:
        report = {"refused": str(refused)}
    target.write_text(json.dumps(report), encoding="utf-8")


def serve() -> None:
    """Proves an export for each line of standard input, in a process of its own.

    A line is a JSON object: `folder`, `warmup`, `report`, and `errors`, the file that standard
    error goes to. The answer is a line too: `code`, the exit code of the process, negative for a
    signal, and `last`, whether this process ends with it.

    This process imports TensorFlow and runs none of it, so it has a single thread, which is what
    makes forking safe, and what it forks has never seen a model. Should an import have started a
    thread, it proves the one export itself and ends.
    """
    for line in sys.stdin:
        job = json.loads(line)
        folder, warmup, target = (Path(job[key]) for key in ("folder", "warmup", "report"))
        if not single_threaded():
            prove(folder, warmup, target)
            print(json.dumps({"code": 0, "last": True}), flush=True)
            return
        child = os.fork()
        if child == 0:
            prove_apart(folder, warmup, target, Path(job["errors"]))
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        print(json.dumps({"code": code, "last": False}), flush=True)


def single_threaded() -> bool:
    """Whether this process has one thread; False where that cannot be told."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def prove_apart(folder: Path, warmup: Path, target: Path, errors: Path) -> NoReturn:
    """Proves one export in a forked process, which then ends."""
    code = 1
    try:
        # what a model might write must not be taken for an answer
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        said = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(said, 1)
        os.dup2(said, 2)
        prove(folder, warmup, target)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Proves one export, or those that it is told of."""
    if sys.argv[1:] == [SERVE]:
        serve()
    else:
        prove(*(Path(argument) for argument in sys.argv[1:4]))


if __name__ == "__main__":
    main()
