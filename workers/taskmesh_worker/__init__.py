"""The worker daemon: one per machine, started by `taskmesh worker`; it supervises runners, which run tasks."""
