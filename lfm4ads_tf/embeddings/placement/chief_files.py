"""Where TensorFlow writes the files of a checkpoint."""

from __future__ import annotations

import tensorflow as tf

_ALONE = "localhost"  # job of a process that joined no cluster


def checkpoint_options() -> tf.train.CheckpointOptions | None:
    """Options of every `tf.train.Checkpoint` that is written or read.

    In a cluster TensorFlow lets each server write what it holds, so the files of one checkpoint
    would lie on the disks of several machines. With these options the process that asks does.

    Returns:
        None, for the default ones, in a process that joined no cluster.
    """
    # an eager tensor is made where the process itself is, whatever strategy is in force
    with tf.device("/device:CPU:0"), tf.init_scope():
        here = tf.DeviceSpec.from_string(tf.zeros([]).device)
    if here.job in (None, _ALONE):
        return None
    return tf.train.CheckpointOptions(experimental_io_device=here.to_string())
