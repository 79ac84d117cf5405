"""stand-in until merged"""

import time

import tensorflow as tf

from lfm4ads_tf.kernels.library import library


def set_threads():
    tf.config.threading.set_inter_op_parallelism_threads(4)


def serve(config, task):
    library()
    server = tf.distribute.Server(
        config.as_spec(), job_name=task.job, task_index=task.index, protocol="grpc", start=True
    )
    print("serving", task, flush=True)
    while True:
        time.sleep(3600)
