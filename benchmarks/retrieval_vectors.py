"""Trained item and query vectors for the retrieval benchmark: a small upstream on synthetic logs.

An upstream is trained for one pass on a synthetic log that shows N ads, the IR of every ad is
taken from its item tower, and W of `model/IR*UR` is trained on the log's clicks:

    query(u) = W UR(u) + b,    L = -log softmax_i(query(u) . IR(i)) over the ads of the batch
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lfm4ads_tf  # noqa: F401  (selects Keras 2 before TensorFlow is imported)

# isort: split
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from lfm4ads_tf.config import resolve
from lfm4ads_tf.data.input import apply, batches
from lfm4ads_tf.data.synthetic import SyntheticAdsLog
from lfm4ads_tf.export.golden_rows import encoded_batch
from lfm4ads_tf.files import staged_folder
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.pipeline.predict import load_encoder
from lfm4ads_tf.pipeline.prepare import prepare
from lfm4ads_tf.pipeline.pretrain import pretrain
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.trained_models import load_upstream

SPEC = Path(__file__).resolve().parent.parent / "feature_specs" / "synthetic.yaml"
BATCH = 8192
W_STEPS = 600
W_BATCH = 2048
FIT_ROWS = 400_000  # clicks at most that W is trained on
_ARROW = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "vector": pa.list_(pa.float32()),
    "texts": pa.list_(pa.string()),
    "numbers": pa.list_(pa.float64()),
}


@dataclass(frozen=True)
class Vectors:
    """What the benchmark searches.

    Attributes:
        items: IR of every ad, (N, d) float32.
        queries: W UR(u) + b of distinct users that W was not trained on, (Q, d) float32.
    """

    items: np.ndarray
    queries: np.ndarray


def trained_vectors(
    folder: Path, *, ads: int, rows: int, dim: int, queries: int, seed: int = 0
) -> Vectors:
    """Makes the vectors once; another call with the same folder reads them.

    Args:
        folder: Where the log, the run and the vectors are kept.
        ads: Ads of the log, N.
        rows: Impressions of the log.
        dim: Width of IR.
        queries: Users that query.
        seed: Seed of the log, the upstream and W.
    """
    target = folder / "vectors.npz"
    if not target.exists():
        users = max(2 * queries, rows // 20)
        if not (folder / "log").exists():
            with staged_folder(folder / "log") as staging:
                SyntheticAdsLog(rows=rows, ads=ads, users=users, seed=seed).write(staging)
        vectors = _train(folder, dim, queries, seed)
        partial = folder / "partial.npz"
        np.savez(partial, items=vectors.items, queries=vectors.queries)
        partial.rename(target)
    with np.load(target) as stored:
        return Vectors(stored["items"], stored["queries"])


def _train(folder: Path, dim: int, queries: int, seed: int) -> Vectors:
    assignments = [
        "features.ad_id.min_count=1",
        f"upstream.network.user_tower=[128, {dim}]",
        f"upstream.network.item_tower=[128, {dim}]",
        "upstream.embeddings.dim=16",
        "upstream.training.auto=false",
        "upstream.training.schedule=epochs",
        "upstream.training.epochs=1",
        "upstream.training.batch_size=2048",
        "representations.snapshots=single",
    ]
    run = Run(folder / "run", resolve(SPEC, assignments, {"seed": seed}))
    run.begin()
    cache = prepare(run, folder / "log")
    pretrain(run, seed)
    model = load_upstream(run, seed)
    items = np.concatenate(list(_items(run, model, folder / "log" / "ads.parquet")))
    train = cache.train_rows
    clicks = train[cache.labels[train, 0] == 1]
    rng = np.random.default_rng(seed)
    users = rng.permutation(np.unique(cache.user[train]))
    asking = users[:queries]
    fit = rng.permutation(clicks[~np.isin(cache.user[clicks], asking)])[:FIT_ROWS]
    last = np.full(int(cache.user.max()) + 1, -1, np.int64)
    last[cache.user[train]] = train
    weights, bias = _fit(_rows(cache, model, fit), seed)
    users_of_queries = _rows(cache, model, last[asking])["UR"]
    return Vectors(items, (users_of_queries @ weights + bias).astype(np.float32))


def _items(run: Run, model: UpstreamModel, file: Path) -> Iterator[np.ndarray]:
    """IR of the ads of a table, in its order."""
    encoder = load_encoder(run)
    table = pq.read_table(file)
    represent = tf.function(lambda batch: model.represent(batch)["IR"], reduce_retracing=True)
    for start in range(0, len(table), BATCH):
        part = table.slice(start, BATCH)
        columns = {
            name: part[name].combine_chunks()
            if name in part.column_names
            else pa.nulls(len(part), _ARROW[of.kind])
            for name, of in encoder.raw_types.items()
        }
        yield represent(encoded_batch(encoder, columns, {})).numpy()


def _rows(cache: Any, model: UpstreamModel, rows: np.ndarray) -> dict[str, np.ndarray]:
    """UR, IR and item code of rows of the cache."""
    found = list(apply(_both, batches(cache, rows, BATCH), model))
    parts = {name: np.concatenate([f[name].numpy() for f in found]) for name in ("UR", "IR")}
    return {**parts, "item": np.asarray(cache.item[rows], np.int64)}


def _both(model: UpstreamModel, batch: Any) -> dict[str, tf.Tensor]:
    represented = model.represent(batch)
    return {"UR": represented["UR"], "IR": represented["IR"]}


def _fit(rows: dict[str, np.ndarray], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """W (d_u, d) and b (d,) by in-batch softmax, corrected for the ads' frequency."""
    counts = np.bincount(rows["item"])
    log_q = np.log(counts[rows["item"]] / counts.sum()).astype(np.float32)
    start = tf.random.stateless_normal([rows["UR"].shape[1], rows["IR"].shape[1]], [seed, 1])
    weights = tf.Variable(start * 0.1)
    bias = tf.Variable(tf.zeros([rows["IR"].shape[1]]))
    optimizer = tf.keras.optimizers.legacy.Adam(0.003)

    @tf.function
    def step(user: tf.Tensor, item: tf.Tensor, code: tf.Tensor, share: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            logits = tf.matmul(user @ weights + bias, item, transpose_b=True) - share  # (B, B)
            same = tf.cast(tf.equal(code[:, None], code[None, :]), tf.float32)
            own = tf.eye(tf.shape(code)[0])
            logits -= 1e9 * (same - own)
            loss = tf.reduce_mean(
                tf.nn.softmax_cross_entropy_with_logits(labels=own, logits=logits)
            )
        variables = [weights, bias]
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    rng = np.random.default_rng(seed)
    for _ in range(W_STEPS):
        chosen = rng.integers(0, len(log_q), W_BATCH)
        step(rows["UR"][chosen], rows["IR"][chosen], rows["item"][chosen], log_q[chosen])
    return weights.numpy(), bias.numpy()
