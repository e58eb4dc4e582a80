"""The tests of framecodec: a file for each module, and laws that hold for the whole package.

This is a package so that tests import helpers by name, and `python -m tests.fuzz` runs.
"""
