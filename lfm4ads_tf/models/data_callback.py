"""Callbacks that are told what a model is fitted on."""

from __future__ import annotations

import abc

import tensorflow as tf
import tf_keras


class DataCallback(tf_keras.callbacks.Callback, metaclass=abc.ABCMeta):
    """A Keras callback that `fit` of this package's models shows its data set first."""

    @abc.abstractmethod
    def on_data(self, data: tf.data.Dataset, model: tf_keras.Model) -> None:
        """Called before anything is trained.

        Args:
            data: What `fit` was given.
            model: The model.

        Raises:
            UserError: The callback cannot go with them.
        """
