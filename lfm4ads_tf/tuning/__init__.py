"""Training that fits itself to the log: settings, a fixed cost table, the search over trials."""
