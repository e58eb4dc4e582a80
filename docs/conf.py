"""Sphinx's configuration: ``nox -s site`` builds the documentation with it."""

from __future__ import annotations

import os

os.environ["FRAMECODEC_NO_EXTENSIONS"] = "1"  # the Python engine's classes can be inspected

import framecodec

project = "framecodec"
author = "the framecodec developers"
copyright = author
version = release = framecodec.__version__
language = "en"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.intersphinx"]
intersphinx_mapping: dict[str, tuple[str, None]] = {}  # the build uses no network
exclude_patterns = ["benchmarks", "pictures"]
nitpicky = False
suppress_warnings = ["myst.xref_missing"] if os.environ.get("FRAMECODEC_DRAFT") else []

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3  # the anchors that GitHub makes

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "inherited-members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "framecodec"
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_extra_path = ["llms.txt"]
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
