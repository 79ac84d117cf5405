"""The library in Python: a log, its data sets, its representations and its exports."""
