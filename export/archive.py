"""Writes signatures as a SavedModel, and says what was written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow.python.ops import lookup_ops
from tensorflow.python.saved_model import fingerprinting_utils
from tensorflow.python.trackable.resource import RestoredResource

from lfm4ads_tf.export.signature import Signature

_GRAPH = "saved_model.pb"


def write_archive(folder: Path, signatures: Sequence[Signature], resources: Sequence[Any]) -> None:
    """Writes a SavedModel of some signatures.

    Only the variables that a signature reads are written, so no optimizer slot comes along. All
    signatures of Classify and Regress read one input tensor, as MultiInference demands; those of
    one function give the same tensors.

    Args:
        folder: An existing empty folder.
        signatures: The signatures; the default one is named `serving_default`.
        resources: Lookup tables, which are not found through the signatures as variables are.
    """
    # Traced once, here: a function that is not yet concrete is traced again to list its variables
    # and again to be written.
    traced: dict[Any, Any] = {}
    for signature in signatures:
        if signature.function not in traced:
            traced[signature.function] = _concrete(signature)
    concrete = {signature.name: traced[signature.function] for signature in signatures}
    root = tf.Module()
    variables = {id(v): v for function in concrete.values() for v in function.variables}
    root.variables_read = list(variables.values())
    root.lookup_tables = [table for resource in resources for table in _lookup_tables(resource)]
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        tf.saved_model.save(root, str(folder), signatures=concrete)
    finally:
        logger.setLevel(level)
    path = folder / _GRAPH
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    graph = saved.meta_graphs[0]
    for signature in signatures:
        graph.signature_def[signature.name].method_name = signature.method_name
    _share_input(graph, [s.name for s in signatures if s.method != "predict"])
    _share_outputs(graph, signatures)
    path.write_bytes(saved.SerializeToString(deterministic=True))
    fingerprinting_utils.write_fingerprint(str(folder))  # of the graph as it is now


def _concrete(signature: Signature) -> Any:
    """The graph of a signature."""
    # No layer branches on a tensor; AutoGraph would only take most of the time of a trace.
    traced = tf.function(signature.function, input_signature=[signature.inputs], autograph=False)
    return traced.get_concrete_function()


def _lookup_tables(resource: Any) -> list[Any]:
    """The lookup tables that an object holds, however deep."""
    held = tf.train.TrackableView(resource).descendants()
    return [
        child for child in held if isinstance(child, (lookup_ops.LookupInterface, RestoredResource))
    ]


def described_signatures(folder: Path) -> dict[str, dict[str, Any]]:
    """The signatures of a SavedModel as plain values.

    Returns:
        Name -> `method`; `inputs` and `outputs`, each key -> `dtype` and `shape`, with None for any
        size or any rank.
    """
    saved = saved_model_pb2.SavedModel.FromString((folder / _GRAPH).read_bytes())
    return {
        name: {
            "method": signature.method_name,
            "inputs": {key: _described(info) for key, info in sorted(signature.inputs.items())},
            "outputs": {key: _described(info) for key, info in sorted(signature.outputs.items())},
        }
        for name, signature in sorted(saved.meta_graphs[0].signature_def.items())
        if not name.startswith("__")
    }


def _described(info: meta_graph_pb2.TensorInfo) -> dict[str, Any]:
    shape: list[int | None] | None = None  # of unknown rank
    if not info.tensor_shape.unknown_rank:
        shape = [None if d.size < 0 else int(d.size) for d in info.tensor_shape.dim]
    return {"dtype": tf.as_dtype(info.dtype).name, "shape": shape}


def _share_outputs(graph: meta_graph_pb2.MetaGraphDef, signatures: Sequence[Signature]) -> None:
    """Makes signatures of one function give the same tensors: a server prepares them once."""
    first: dict[Any, str] = {}
    dropped: set[str] = set()
    for signature in signatures:
        kept = first.setdefault(signature.function, signature.name)
        one, other = graph.signature_def[kept], graph.signature_def[signature.name]
        shared = {key: end.name for key, end in one.inputs.items()} == {
            key: end.name for key, end in other.inputs.items()
        }
        if kept == signature.name or not shared:
            continue
        for key, end in other.outputs.items():
            dropped.add(end.name.partition(":")[0])
            end.name = one.outputs[key].name
    for i in reversed(range(len(graph.graph_def.node))):
        if graph.graph_def.node[i].name in dropped:
            del graph.graph_def.node[i]


def _share_input(graph: meta_graph_pb2.MetaGraphDef, names: Sequence[str]) -> None:
    """Makes several signatures of one input each read the first one's placeholder."""
    if len(names) < 2:
        return
    ends = [next(iter(graph.signature_def[name].inputs.values())) for name in names]
    kept = ends[0].name
    replaced = {end.name.partition(":")[0] for end in ends[1:]}
    for node in graph.graph_def.node:
        for i, source in enumerate(node.input):
            if source.partition(":")[0] in replaced:
                node.input[i] = kept.partition(":")[0]
    for i in reversed(range(len(graph.graph_def.node))):
        if graph.graph_def.node[i].name in replaced:
            del graph.graph_def.node[i]
    for end in ends[1:]:
        end.name = kept
