"""Benchmarks. Each is a command, `python -m bench.gateway`, that measures against a baseline.

Absolute figures say little: they move by half from one hour to another. So each figure stands
beside a baseline taken in the same run, round by round in turn, and what counts is the ratio of
the two medians. `python -m bench` runs them all and prints one table. Nothing here is a test.
"""
