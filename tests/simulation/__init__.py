"""The mesh on a virtual clock and a faulty network: thousands of schedules, each one repeatable from its seed.

`world` is time, `network` the sockets, `process` a role with its loop; `hub`, `daemon`, `runner` and `client` are the
roles around the real machines; `disk` is what outlives a hub. `script` makes a schedule of work and faults from a seed,
`checks` says what has to hold, `simulator` runs one schedule, `shrink` makes a failing one short. Run it with
`python -m tests.simulation --seeds 1000`.
"""
