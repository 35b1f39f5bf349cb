"""Killing real processes: does every future get its right result, once?

A client submits tasks that each put their number on record, to a hub with several daemons, while a seeded schedule
kills, stops, starts again and cuts off whatever it can reach. `python -m benchmarks.chaos --help`.
"""
