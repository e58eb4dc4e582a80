"""The tests of framecodec: a file a room of the package, and laws that hold for all of it.

A package, so that its helpers are imported by name (``from tests.cutting import ...``) and the
fuzz campaign runs as ``python -m tests.fuzz``.
"""
