"""Keys and tickets as files: what a hub keeps, what its peers are given, and how they find it.

Everything here reads and writes files and decides nothing about who may do what: that is `taskmesh.core.access`. It
opens no sockets.
"""
