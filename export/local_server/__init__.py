"""A server for development and tests that speaks TensorFlow Serving's gRPC and REST protocols.

Not for production: it is Python, checks nothing of who asks, and has no batching. Start it with
`lfm4ads-local-server`, or in a test with `lfm4ads_tf.export.local_server.server.LocalServer`.
"""
