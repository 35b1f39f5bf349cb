"""Hostile input, thrown at a live mesh: every kind at every port, while an honest client's tasks go on.

`python -m tests.hostile --tasks 100000`; see `__main__`. All of it stays on loopback, and is bounded in count and time.
"""
