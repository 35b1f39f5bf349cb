"""The command line, one file per verb, and the entry point of private meshes. The only part that knows all others."""
