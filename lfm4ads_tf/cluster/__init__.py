"""Training on several machines: which processes there are, their main loops, their launcher."""
