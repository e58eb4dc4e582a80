"""The compiled modules, and when to leave them out. The rest of the package: see pyproject.toml.

FRAMECODEC_NO_EXTENSIONS=1       leave them out: a pure wheel
FRAMECODEC_REQUIRE_EXTENSIONS=1  fail where they cannot be built (CI and releases)
neither                          build them; where that fails, install the Python engine alone
FRAMECODEC_SANITIZE=1            for tests: with AddressSanitizer and UBSan
FRAMECODEC_LINETRACE=1           for tests: with line tracing, for the coverage of the .pyx files
"""

import importlib.util
import os
import sys

from setuptools import Extension, setup

NO, REQUIRE, SANITIZE, LINETRACE = (
    os.environ.get(f"FRAMECODEC_{switch}", "") not in ("", "0")
    for switch in ("NO_EXTENSIONS", "REQUIRE_EXTENSIONS", "SANITIZE", "LINETRACE")
)
obstacle = None
if NO:
    obstacle = "FRAMECODEC_NO_EXTENSIONS is set"
elif sys.implementation.name != "cpython":
    obstacle = f"they are for CPython, and this is {sys.implementation.name}"
elif importlib.util.find_spec("Cython") is None:  # without it setuptools looks for a .c file
    obstacle = "Cython is not installed"
if obstacle and REQUIRE:
    sys.exit(f"FRAMECODEC_REQUIRE_EXTENSIONS is set, but no compiled engine is built: {obstacle}.")

names = ["_encoder", "_splitter", "sockets._fast_path", "asyncio._fast_path"]
if sys.platform == "linux":  # it waits with epoll; elsewhere its twin in Python is used
    names.append("serving._messages_loop")
extensions = [
    Extension(
        f"framecodec.{name}",
        [f"src/framecodec/{name.replace('.', '/')}.pyx"],
        optional=not REQUIRE,
    )
    for name in names
]
for extension in extensions:
    if sys.platform != "win32":  # here and not in CFLAGS, which would replace Python's own flags
        checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"] if SANITIZE else []
        extension.extra_compile_args = checks + (["-O1", "-g"] if SANITIZE else ["-O3", "-g0"])
        extension.extra_link_args = checks
    if LINETRACE:  # without the second macro, Python 3.13 and later report no line
        extension.cython_directives = {"linetrace": True}
        extension.define_macros = [("CYTHON_TRACE", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]
setup(ext_modules=[] if obstacle else extensions)
