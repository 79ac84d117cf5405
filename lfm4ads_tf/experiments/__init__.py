"""Published experiments, run again: `python -m lfm4ads_tf.experiments.<name>`."""
