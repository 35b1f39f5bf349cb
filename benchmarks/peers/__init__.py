"""One small adapter per peer: a module with one class `Adapter` that fits the protocol in base.py.

Which peers there are is in registry.py. An adapter imports its library at the top of its own module and
nothing of the harness, so that a measurement loads one peer and only that.
"""
