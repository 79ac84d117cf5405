"""Sharded embedding tables, their row-sparse optimizer and their layout."""
