"""Sharded embedding tables, their layout and their files."""
