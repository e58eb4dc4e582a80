"""The compiled modules, and when to leave them out. The rest of the package: see pyproject.toml.

FRAMECODEC_NO_EXTENSIONS=1       leave them out: a pure wheel
FRAMECODEC_REQUIRE_EXTENSIONS=1  fail where they cannot be built (CI and releases)
neither                          build them; where that fails, install the Python engine alone,
                                 from a wheel that no installer keeps (see WheelBuilder)
FRAMECODEC_SANITIZE=1            for tests: with AddressSanitizer and UBSan
FRAMECODEC_SANITIZE_THREADS=1    for tests: with ThreadSanitizer
FRAMECODEC_FUZZER=1              for tests: with AddressSanitizer and libFuzzer's coverage (clang)
FRAMECODEC_LINETRACE=1           for tests: with line tracing, for the coverage of the .pyx files
"""

import importlib.util
import os
import re
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

NO, REQUIRE, SANITIZE, FUZZER, LINETRACE = (
    os.environ.get(f"FRAMECODEC_{switch}", "") not in ("", "0")
    for switch in ("NO_EXTENSIONS", "REQUIRE_EXTENSIONS", "SANITIZE", "FUZZER", "LINETRACE")
)
SANITIZE_THREADS = os.environ.get("FRAMECODEC_SANITIZE_THREADS", "") not in ("", "0")
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
# It waits with epoll, and relies on the GIL; elsewhere its twin in Python is used.
if sys.platform == "linux" and not sysconfig.get_config_var("Py_GIL_DISABLED"):
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
        if SANITIZE_THREADS:
            checks = ["-fsanitize=thread"]
        coverage = ["-fsanitize=address,fuzzer-no-link"] if FUZZER else []
        optimized = ["-O1", "-g"] if checks or FUZZER else ["-O3", "-g0"]
        if LINETRACE:  # the calls of the tracer take the time; unoptimized code is built sooner
            optimized = ["-O0", "-g0"]
        extension.extra_compile_args = checks + coverage + optimized
        extension.extra_link_args = checks  # atheris has the runtime of the coverage
    # Each interpreter of a process loads the modules for itself, and no import switches the GIL on.
    extension.cython_directives = {
        "subinterpreters_compatible": "own_gil",
        "freethreading_compatible": True,
    }
    extension.define_macros = [("CYTHON_USE_MODULE_STATE", "1"), ("CYTHON_USE_TYPE_SPECS", "1")]
    if LINETRACE:
        extension.cython_directives["linetrace"] = True
        # The second is for functions without the GIL. Without the third, Python 3.13 and later
        # report no line.
        extension.define_macros += [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")]
        extension.define_macros += [("CYTHON_USE_SYS_MONITORING", "0")]


class ExtensionsBuilder(build_ext):
    """Build all compiled modules or, where one of them fails, none."""

    def run(self):
        super().run()
        if self.editable_mode or self.inplace:
            return
        paths = [Path(self.get_ext_fullpath(extension.name)) for extension in self.extensions]
        if not all(path.exists() for path in paths):
            for path in paths:
                path.unlink(missing_ok=True)
            self.distribution.ext_modules = []


class WheelBuilder(bdist_wheel):
    """Build a wheel; one whose compilation failed gets a name that no installer keeps or shares.

    An installer keeps the wheels that it builds from a source distribution, and looks at nothing
    but their names when it needs one again. Under a name for this platform, or for all of them, a
    wheel without the compiled engine would be used again after a C compiler was installed. No
    Python supports a platform `not_compiled`: pip installs the wheel that it has just built, and
    never finds it again. uv, which keeps what it builds in another way, refuses it.
    """

    def run(self):
        if self.distribution.ext_modules:
            self.run_command("build_ext")
            failed = not self.distribution.ext_modules
            self.root_is_pure = failed
        else:
            failed = False
        super().run()
        if failed:
            self.hide_from_caches()

    def hide_from_caches(self):
        ((command, version, path),) = self.distribution.dist_files
        hidden = path.removesuffix("-any.whl") + "-not_compiled.whl"
        os.replace(path, hidden)
        self.distribution.dist_files[:] = [(command, version, hidden)]
        self.warn(
            "no C compiler, or it failed: this wheel has only the Python engine, which is slower."
            " Install a C compiler and install framecodec again, or set FRAMECODEC_NO_EXTENSIONS=1"
            " to choose the Python engine."
        )


def description():
    """Return README.md as a package index shows it: with links to the files of this version."""
    here = Path(__file__).parent
    module = (here / "src/framecodec/__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(.+)"', module, re.MULTILINE)[1]

    def absolute(link):
        kind = "raw" if link[1].endswith(".svg") else "blob"
        return f"](https://github.com/framecodec/framecodec/{kind}/v{version}/{link[1]})"

    page = (here / "README.md").read_text(encoding="utf-8")
    page = re.sub(r"\]\((?!\w+:|#)([^)]+)\)", absolute, page)
    return page.replace("pip install . &&", "pip install framecodec &&")


setup(
    long_description=description(),
    long_description_content_type="text/markdown",
    ext_modules=[] if obstacle else extensions,
    cmdclass={"bdist_wheel": WheelBuilder, "build_ext": ExtensionsBuilder},
)
