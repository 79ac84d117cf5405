"""DeepCTR: its DCN (parallel, full matrices, one task), its MMOE and its PLE."""

from __future__ import annotations

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before the first import: the library needs Keras 2

from threading import Thread  # noqa: E402
from typing import Any  # noqa: E402
from unittest import mock  # noqa: E402

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import tf_keras  # noqa: E402

with mock.patch.object(Thread, "start"):  # its import would ask the registry for its version
    import deepctr
    from deepctr.feature_column import SparseFeat
    from deepctr.models import DCN, MMOE, PLE

from benchmarks.peers.networks import Kernel, Network  # noqa: E402
from benchmarks.peers.protocol import serve  # noqa: E402
from benchmarks.peers.tensorflow_common import (  # noqa: E402
    compiled_step,
    kernels_of,
    use_threads,
)


class DeepCtr:
    """No regularisation: its default L2 on the tables reads every row at each step."""

    def __init__(self, network: Network, threads: int) -> None:
        use_threads(threads)
        tf_keras.utils.set_random_seed(0)
        names = [f"f{k}" for k in range(network.features)]
        columns = [SparseFeat(n, network.rows, network.dim, dtype="int64") for n in names]
        of_tasks: dict[str, Any] = {
            "expert_dnn_hidden_units": network.units,
            "tower_dnn_hidden_units": network.tower,
            "l2_reg_embedding": 0,
            "task_types": ["binary"] * network.tasks,
            "task_names": [f"task_{k}" for k in range(network.tasks)],
        }
        if network.model == "mmoe":
            self.model = MMOE(columns, num_experts=network.experts, **of_tasks)
        elif network.model == "ple":
            self.model = PLE(
                columns,
                shared_expert_num=network.shared,
                specific_expert_num=network.own,
                num_levels=network.levels,
                **of_tasks,
            )
        else:
            self.model = DCN(
                [],
                columns,
                cross_num=network.cross_depth,
                cross_parameterization="matrix",
                dnn_hidden_units=network.units,
                l2_reg_linear=0,
                l2_reg_embedding=0,
                l2_reg_cross=0,
            )
        optimizer = tf_keras.optimizers.Adagrad(0.05)
        optimizer.build(self.model.trainable_variables)

        def loss_of(ids: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            inputs = dict(zip(names, tf.split(ids, len(names), axis=1), strict=True))  # (B, 1)
            scores = self.model(inputs, training=True)
            scores = tf.concat(tf.nest.flatten(scores), axis=-1)  # (B, T)
            return tf.reduce_mean(tf_keras.losses.binary_crossentropy(labels, scores))

        def apply(gradients: list[Any], variables: list[Any]) -> None:
            optimizer.apply_gradients(
                [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
            )

        # Its constant linear logit does not broadcast to a batch of known size.
        signature = [
            tf.TensorSpec([None, network.features], tf.int64),
            tf.TensorSpec([None, network.tasks], tf.float32),
        ]
        self._step = compiled_step(
            loss_of, lambda: self.model.trainable_variables, apply, signature
        )
        self.about = (
            f"tensorflow {tf.__version__}, deepctr {deepctr.__version__}; one embedding layer a "
            "feature, no L2, Adagrad for all variables"
        )

    def kernels(self) -> list[Kernel]:
        """See `Contender`."""
        tables = {
            id(layer.embeddings)
            for layer in self.model.layers
            if isinstance(layer, tf_keras.layers.Embedding)
        }
        return kernels_of(v for v in self.model.trainable_variables if id(v) not in tables)

    def step(self, ids: np.ndarray, labels: np.ndarray) -> tf.Tensor:
        """See `Contender`."""
        return self._step(tf.convert_to_tensor(ids), tf.convert_to_tensor(labels))


if __name__ == "__main__":
    serve(DeepCtr)
