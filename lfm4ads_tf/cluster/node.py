"""What a process of a cluster does before it trains or serves, and how it serves."""

from __future__ import annotations

import logging
import os
import threading
from typing import NoReturn

import tensorflow as tf

from lfm4ads_tf.cluster.addresses import is_taken, port_of
from lfm4ads_tf.cluster.cluster_config import ClusterConfig
from lfm4ads_tf.cluster.exit_codes import ADDRESS_TAKEN
from lfm4ads_tf.cluster.lifeline import follow_launcher
from lfm4ads_tf.cluster.serving_line import serving_line
from lfm4ads_tf.cluster.task import Task
from lfm4ads_tf.cluster.threads import inter_op_threads
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.kernels.library import library
from lfm4ads_tf.leave import leave

_LOG = logging.getLogger(__name__)
_INTERRUPTED = 130


def begin(config: ClusterConfig, task: Task) -> None:
    """Makes this process ready for its task; for every task, before TensorFlow runs an op.

    It ends with its launcher from here on, has threads enough, and knows the compiled ops: a
    server runs the ops that the chief sends it. Ends the process with the exit code 76 where its
    address belongs to another one.

    Args:
        config: The cluster.
        task: The task of this process.

    Raises:
        UserError: This process may not listen on its port.
    """
    follow_launcher()
    tf.config.threading.set_inter_op_parallelism_threads(inter_op_threads())
    # TensorFlow's condition for telling the chief that a worker or server was lost.
    os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")
    library()
    address = config.address(task)
    try:
        taken = is_taken(port_of(address))
    except OSError as error:
        raise UserError(
            f"The process {task} may not listen on the port of {address}.",
            received=error.strerror,
            fix="give it another port in the cluster's file",
        ) from error
    if taken:
        _leave_taken(task, address)


def serve(config: ClusterConfig, task: Task) -> NoReturn:
    """Serves as a worker or parameter server until the process is ended.

    Args:
        config: The cluster.
        task: The task of this process.

    Raises:
        UserError: This process may not listen on its port.
        tensorflow.errors.OpError: The server does not start, for another reason than its address.
    """
    begin(config, task)
    address = config.address(task)
    options = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=inter_op_threads())
    try:
        server = tf.distribute.Server(
            config.as_spec(),
            job_name=task.job,
            task_index=task.index,
            protocol="grpc",
            config=options,
            start=True,
        )
    except tf.errors.OpError:
        if is_taken(port_of(address)):  # another one was faster
            _leave_taken(task, address)
        raise
    _LOG.info("%s%s", serving_line(task), address)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    del server
    leave(_INTERRUPTED)


def _leave_taken(task: Task, address: str) -> NoReturn:
    """Leaves an address to the process that has it."""
    _LOG.error("%s cannot serve: the port of %s belongs to another process", task, address)
    leave(ADDRESS_TAKEN)
