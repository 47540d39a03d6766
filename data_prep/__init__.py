"""Data sets: the embedded benchmark's renderer, and a module per real data set that turns its files into a manifest.

Nothing here trains or scores, and the library names no data set but through its steps.
"""
