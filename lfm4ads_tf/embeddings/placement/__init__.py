"""Where variables lie: on the one machine, or on the servers of a cluster."""
