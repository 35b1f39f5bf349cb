"""Hostile input: fuzzing of every decoder and every machine, and a corpus of what was found before.

`python -m tests.fuzz --minutes 10`; see `__main__`. An input is always a string of bytes, whatever makes it and
whatever a target makes of it: so every engine drives every target, and a finding is a small file that can be replayed.
"""
