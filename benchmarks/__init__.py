"""taskmesh beside its peers: same workloads, same machine, same minutes. See benchmarks/README.md.

Importing this package imports nothing else: start-up time is one of the things it measures.
"""
