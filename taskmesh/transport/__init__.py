"""Sockets, endpoints and the poll loop. Nothing here decides anything about tasks."""
