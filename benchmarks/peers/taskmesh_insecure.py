"""taskmesh as `taskmesh_apart` has it, without keys: what is left of the time then is not encryption's."""

from benchmarks.peers import taskmesh_apart


class Adapter(taskmesh_apart.Adapter):
    """A mesh that joined a hub, neither of which has keys."""

    insecure = True
