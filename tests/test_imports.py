"""Imports go one way: a module imports only from the layers before its own.

`LAYERS` declares the order. The table in docs/architecture.md is printed from it:
``python -m tests.test_imports`` writes it there.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import framecodec

PACKAGE = Path(framecodec.__file__).parent
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
MARKS = ("<!-- modules -->\n", "<!-- /modules -->\n")

# Every module and its purpose, from the first layer to the last. Modules of one layer do not import
# each other. A module of a folder is named by its path; a folder that is named alone, such as cli/,
# is one module here.
LAYERS = [
    {
        "_locks.py": "locks that a call releases also where memory has run out",
        "_bytes_like.py": "the memory of a bytes-like object",
        "_message_types.py": "the types of messages, for type checkers",
        "_repeated_errors.py": "errors that several threads may raise at one time",
        "_check.py": "`Check`: the checksum of a frame, as a codec's parameter",
        "_checksums_py.py": "the checksums that have a name, in Python",
    },
    {
        "_layout.py": "a frame's shape as plain numbers, for the engines",
        "_peers.py": "the name of a connection's peer, in errors, logs and `repr`",
        "errors.py": "the exceptions that users catch",
    },
    {"_likely_causes.py": "guesses why a peer's bytes are not the frames that the codec expects"},
    {"_error_texts.py": "the texts of errors that several modules raise"},
    {"_plain_parameters.py": "parameters as plain values"},
    {
        "_mark_parameters.py": "end marks and escapes, checked",
        "_message_start.py": "the start of a message that travels in the header",
        "_choice.py": "several layouts on one stream: a byte of each frame chooses",
        "_choice_constructors.py": "the constructors of codecs that are made of other codecs",
    },
    {
        "_choice_parameters.py": "the alternatives of a choice, checked and turned into one tree",
        "_early_choice.py": "what the frame of a message will choose, for the compiled encoder",
        "_joined.py": "the fragments of a message, for both encoders",
        "_joined_constructors.py": "the constructor of codecs whose messages have several frames",
    },
    {
        "_joined_parameters.py": "the parameters of joined frames, checked",
        "_states.py": "the states of a connection's two directions",
        "_shapes.py": "parse and build functions of the formats whose shape needs code",
        "sockets/waiting.py": "wait for a socket until a deadline",
        "_text_shapes.py": "parse and build functions of text protocols",
        "_log.py": "what servers, listeners and observers log",
        "asyncio/waiters.py": "futures that tasks wait for: until the peer takes more, or the end",
    },
    {
        "_check_bytes.py": "the bytes of a check: computed, written and read",
        "_mark_texts.py": "the errors about frames that an end mark ends",
        "_custom_header.py": "headers that functions of the user read and build",
        "_header_block.py": "headers that are `Name: value` lines",
        "_parameters.py": "a codec's arguments, checked and turned into a layout",
    },
    {
        "_module_state.pxd": "the state of a compiled module in each interpreter, in C",
        "_numbers.pxd": "what the compiled splitter and encoder share: a layout in C, numbers",
    },
    {"_checksums.pxd": "the checksums that have a name, in C, and the checks made of them"},
    {
        "_joins.pxd": "messages of one fragment, measured and written in C",
        "_mark_constructors.py": "constructors of codecs whose frames an end mark ends",
        "_text_constructors.py": "constructors of codecs whose length is text",
        "_marks.pxd": "end marks, escapes and byte stuffing, in C",
        "_marks_py.py": "the same in Python",
        "_block_scan.pxd": "header blocks in C",
        "_numbers.pxd": "what the compiled splitter and encoder share: a layout in C, numbers",
    },
    {
        "_encoder.pyx": "messages to bytes, compiled",
        "_encoder_py.py": "the same in Python",
    },
    {
        "_fields_py.py": "the length fields, in Python",
        "_resync.py": "the bytes at which a frame can begin, for a splitter that looks for them",
        "_spans_py.py": "the positions of frames in a buffer, in Python",
        "_gaps_py.py": "bytes of a stream that are in no message, in Python",
    },
    {
        "_fragments.py": "the fragments of a message, for both splitters",
        "_chosen_frames_py.py": "the frames of a choice, in Python",
    },
    {"_quick_loops_py.py": "the loops over ordinary frames that begin with a length, in Python"},
    {"_plain_reader_py.py": "the reader of the commonest frames, in Python"},
    {
        "_quick_frames_py.py": "ordinary frames of other lengths, whole or cut, in Python",
        "_split_frames_py.py": "the same of frames that an end mark ends",
    },
    {
        "_marked_reader_py.py": "the reader of frames that an end mark ends, in Python",
    },
    {
        "_checked_reader_py.py": "the checks of frames, in Python",
        "_joined_reader_py.py": "frames that are joined to messages, in Python",
    },
    {"_frame_reader_py.py": "the parsing part of the splitter, in Python"},
    {"_keeping_reader_py.py": "unread bytes: one message a call, errors, switching, in Python"},
    {
        "_object_messages_py.py": "messages that are objects, in the splitter in Python",
        "_event_loop_py.py": "the way of a read and of a write through an event loop, in Python",
    },
    {"_read_memory_py.py": "the memory that callers of the splitter read into, in Python"},
    {"_hand_over_py.py": "the end of a stream: `feed_eof`, `switch`, `detach`, in Python"},
    {
        "_splitter.pyx": "bytes to messages, compiled",
        "_splitter_py.py": "the same in Python: the splitter's public interface",
    },
    {"_engine.py": "chooses the engine, compiled or Python, once for all modules"},
    {"splitter.py": "the public names of the engine in use"},
    {
        "_files.py": "messages in files, for `Codec.read` and `Codec.write`",
        "_one_frame.py": "whether bytes are exactly one frame: the errors of `Codec.decode`",
    },
    {
        "_kept_headers.py": "the frame of a delivered message, exactly as it travelled",
    },
    {
        "_objects.py": "messages that are objects: codecs made by `with_objects`",
        "_splitting.py": "`Codec.splitter` and `Codec.read`",
        "_any_parameters.py": "the parameters of all constructors, for the types of `replace`",
    },
    {"codec.py": "`Codec`: constructors and verbs"},
    {
        "_observer.py": "observers, and the splitter of a connection that has one",
        "_unframed.py": "received bytes that are not parsed, between frames",
    },
    {
        "_inbox.py": "the receive side of a connection: messages, its end, the peer's time limits",
        "_catalogue.py": "the class of the catalogue and its rows",
        "_outbox.py": "messages that were accepted for sending and are still unsent",
        "_datagrams.py": "messages in datagrams: pack, split, largest size",
    },
    {
        "_addresses.py": "the forms of an address that connects or listens",
        "_options.py": "the options of a connection, checked",
    },
    {"_formats/": "the rows of the catalogue: name, codec, description, specification"},
    {"catalogue.py": "`formats`: the known protocols, a table"},
    {
        "notation.py": "`parse_codec` and `format_codec`: a codec as one line of text",
    },
    {
        "asyncio/_fast_path.pyx": "the fast path of a message through an event loop, compiled",
        "asyncio/_fast_path_py.py": "the same in Python",
        "asyncio/datagrams.py": "`DatagramStream`",
        "asyncio/time_limits.py": "the timer of a peer with time limits",
        "asyncio/objects.py": "the calls of `FrameStream` for messages that are objects",
        "asyncio/loop_options.py": "the options that asyncio's own functions take",
        "asyncio/opening.py": "what is awaited or entered to open a connection",
        "asyncio/pipe_transport.py": "one transport for the two ends of a connection over pipes",
        "asyncio/transport.py": "the transport that a protocol's user sees",
        "asyncio/shared_by_loop.py": "what the connections of a loop share: memory, ready tasks",
        "sockets/_fast_path.pyx": "the fast path of a message through a socket, compiled",
        "sockets/_fast_path_py.py": "the same in Python",
        "sockets/accept_pause.py": "the pauses of a listener whose `accept` fails",
        "sockets/pipe_ends.py": "the files of a `FramePipe`: descriptors with poll, other objects",
        "sockets/udp_segments.py": "many UDP datagrams of one size by one system call, on Linux",
        "sockets/base.py": "the part of a socket's interface that all wrappers share",
    },
    {
        "serving/common.py": "what the servers share: arguments, their end, faults",
        "asyncio/sending.py": "the send side: messages → batch → outbox → transport",
        "asyncio/object_delivery.py": "messages that are objects, in a `FrameProtocol`",
        "sockets/datagrams.py": "`DatagramSocket`",
        "sockets/wire.py": "one system call, plain or TLS, and what to wait for after it",
    },
    {"sockets/objects.py": "the calls of `FrameSocket` for messages that are objects"},
    {"sockets/receiving.py": "the slow path of receiving: waits, limits, failures"},
    {"sockets/checks.py": "the checks of messages that are never in memory as a whole"},
    {
        "sockets/files.py": "messages from and to files, and into buffers of the caller",
        "sockets/unframed.py": "unframed bytes between the messages",
    },
    {"sockets/parts.py": "one message in parts, as it arrives"},
    {"sockets/sending.py": "the slow path of sending: waits, unsent bytes"},
    {"sockets/lingering.py": "the lingering close: discard what arrives for a bounded time"},
    {"sockets/calls.py": "the calls that receive and send, over a socket or pipes"},
    {
        "sockets/connection.py": "`FrameSocket`",
        "sockets/pipes.py": "`FramePipe`",
    },
    {"sockets/connecting.py": "`connect`"},
    {"sockets/listener.py": "`listen`, `Listener`; files of Unix sockets"},
    {"sockets/__init__.py": "the public names for blocking sockets"},
    {"datagrams.py": "the public name of `DatagramSocket`"},
    {"asyncio/observed.py": "what only an observed or a broken connection needs"},
    {
        "asyncio/back_pressure.py": "sends that wait while the peer is slow",
        "asyncio/protocol.py": "`FrameProtocol`: what the event loop calls",
    },
    {"asyncio/files.py": "messages of a stream from and to files, buffers, in parts"},
    {
        "asyncio/unframed.py": "unframed bytes between the messages of a stream",
        "asyncio/lingering.py": "the lingering close of a stream",
        "asyncio/tls.py": "the upgrade of a stream to TLS",
    },
    {"asyncio/stream.py": "`FrameStream`: a connection for tasks that wait"},
    {"asyncio/stream_protocol.py": "the protocol of a `FrameStream`: its queue"},
    {"asyncio/server.py": "`FrameServer`: a server in an event loop"},
    {
        "asyncio/pipe_writers.py": "outputs that the loops' own transports do not write to",
    },
    {
        "asyncio/pipes.py": "`open_pipes`, `open_stdio`, `open_process`",
        "asyncio/connect.py": "`open_connection`, `start_server` and their Unix versions",
    },
    {"asyncio/__init__.py": "the public names for event loops"},
    {"anyio.py": "`FrameStream` over the byte streams of AnyIO"},
    {"socketserver.py": "connections of the standard library's `socketserver`"},
    {
        "serving/_message_steps_py.py": "`serve_messages`, for one connection, in Python",
        "serving/_messages_loop.pyx": "the loop of `serve_messages`, compiled, with epoll",
        "serving/threads.py": "`serve`: a thread for each connection",
    },
    {"serving/_messages_loop_py.py": "the loop of `serve_messages` in Python, with `selectors`"},
    {"serving/messages.py": "`serve_messages`: one thread for all connections"},
    {"serving/__init__.py": "the public names of the blocking servers"},
    {"_guess/": "`guess`: the codecs that explain a capture"},
    {"testing/": "the test kit for users"},
    {"cli/": "the command line"},
    {"__main__.py": "`python -m framecodec`"},
]


def module_of(file: str) -> str:
    """Return the dotted name of a module by its path in the package."""
    path = (
        file.removesuffix(".pyx").removesuffix(".pxd").removesuffix(".py").removesuffix("/__init__")
    )
    return path.removesuffix("/").replace("/", ".")


LAYER_OF = {module_of(file): number for number, layer in enumerate(LAYERS) for file in layer}
FOLDERS = {module_of(file) for layer in LAYERS for file in layer if file.endswith("/")}

# Imports from a later layer. Each is inside a function, for the reason given.
EXCEPTIONS = {
    # For annotations only: the constructors of a base class.
    ("_choice_constructors", "_parameters"),
    ("_choice_constructors", "codec"),
    ("_joined_constructors", "_parameters"),
    ("_joined_constructors", "codec"),
    ("_checked_reader_py", "_frame_reader_py"),  # for annotations only
    ("_chosen_frames_py", "_frame_reader_py"),
    ("_joined_reader_py", "_frame_reader_py"),
    ("_quick_frames_py", "_frame_reader_py"),
    ("_quick_loops_py", "_frame_reader_py"),
    ("_split_frames_py", "_frame_reader_py"),
    ("codec", "notation"),  # str(codec) is the notation, which uses codecs
    # The engine is chosen once for all modules, by their names.
    ("_engine", "asyncio._fast_path_py"),
    ("_engine", "sockets._fast_path_py"),
    # For annotations only: an object refers to the one that owns it.
    ("_mark_constructors", "codec"),
    ("_text_constructors", "codec"),
    ("_objects", "codec"),
    ("_hand_over_py", "codec"),
    ("_splitter_py", "codec"),
    ("_marked_reader_py", "_frame_reader_py"),
    ("serving._message_steps_py", "serving._messages_loop_py"),
    ("sockets.objects", "sockets.receiving"),
    ("sockets.objects", "sockets.sending"),
    ("asyncio.objects", "asyncio.stream_protocol"),
    ("asyncio.object_delivery", "asyncio.sending"),
    ("asyncio.back_pressure", "asyncio.protocol"),
    ("asyncio.stream", "asyncio.stream_protocol"),
    ("asyncio.lingering", "asyncio.stream_protocol"),
    ("asyncio.observed", "asyncio.protocol"),
    ("asyncio.sending", "asyncio.protocol"),
    ("asyncio.tls", "asyncio.stream_protocol"),
    ("asyncio.files", "asyncio.stream_protocol"),
    ("asyncio.transport", "asyncio.protocol"),
    ("asyncio.unframed", "asyncio.stream_protocol"),
    ("asyncio.transport", "asyncio.sending"),
    ("sockets.checks", "sockets.files"),
    ("sockets.files", "sockets.receiving"),
    ("sockets.wire", "sockets.files"),
    ("sockets.wire", "sockets.sending"),
}


def entry_of(module: str) -> str | None:
    """Return the entry of a module in `LAYERS`, its own or that of its folder; None without one."""
    folder = module.partition(".")[0]
    return folder if folder in FOLDERS else module if module in LAYER_OF else None


def source_files() -> list[Path]:
    return sorted(
        path
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "__init__.py"  # it exports names of every module
    )


def imported_modules(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield each module of the package that a file imports, and whether inside a function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING")
        for node in ast.walk(block)
    }
    parents = path.relative_to(PACKAGE).parts[:-1]  # the folders in the package
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            if node.level:
                above = ["framecodec", *parents][: len(parents) + 2 - node.level]
                origin = ".".join([*above, *([node.module] if node.module else [])])
                names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            module = name.removeprefix("framecodec.")
            if module not in LAYER_OF:  # the name of a function or class
                module = module.rpartition(".")[0]
            entry = entry_of(module)
            if module != name and entry is not None:
                yield entry, id(node) in inside


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_earlier_layers(path: Path) -> None:
    file = path.relative_to(PACKAGE).as_posix()
    module = entry_of(module_of(file))
    assert module, f"add {file} to a layer in LAYERS"
    wrong = {
        imported
        for imported, inside in imported_modules(path)
        if imported != module
        and LAYER_OF[imported] >= LAYER_OF[module]
        and not (inside and (module, imported) in EXCEPTIONS)
    }
    assert not wrong


def test_the_walk_finds_imports() -> None:
    # A walk that finds nothing would accept every file.
    assert {"_layout", "_one_frame", "_parameters", "splitter"} <= {
        module for module, _ in imported_modules(PACKAGE / "codec.py")
    }
    assert ("_engine", False) in set(imported_modules(PACKAGE / "splitter.py"))
    assert ("_splitter_py", True) in set(imported_modules(PACKAGE / "_engine.py"))
    assert ("notation", True) in set(imported_modules(PACKAGE / "codec.py"))
    assert {("_outbox", False), ("asyncio.transport", False), ("asyncio.protocol", True)} <= set(
        imported_modules(PACKAGE / "asyncio" / "sending.py")
    )


_SPLITTER_PARTS = (
    *("splitter", "hand_over", "read_memory", "object_messages", "keeping_reader"),
    *("frame_reader", "chosen_frames"),
    *("plain_reader", "checked_reader", "joined_reader"),
    *("fields", "spans", "marked_reader", "marks"),
    *("quick_frames", "quick_loops", "split_frames", "gaps"),
)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "_splitter",
            [f"_{part}_py" for part in _SPLITTER_PARTS],
        ),
        ("_encoder", ["_encoder_py", "_marks_py"]),
    ],
)
def test_the_compiled_engine_imports_what_the_python_engine_imports(
    name: str, parts: list[str]
) -> None:
    pyx = PACKAGE / f"{name}.pyx"
    if not pyx.exists():  # an installed wheel has no source of the compiled engine
        pyx = ROOT / "src" / "framecodec" / f"{name}.pyx"
    modules = set()
    for line in pyx.read_text(encoding="utf-8").splitlines():
        if line.startswith("from . import "):
            modules |= set(line.removeprefix("from . import ").split(", "))
        elif line.startswith("from .") and (" cimport " not in line or "_checksums" in line):
            modules.add(line.split()[1].strip("."))
    twin = {module for part in parts for module, _ in imported_modules(PACKAGE / f"{part}.py")}
    for_annotations = {"_message_types", "codec"}
    assert modules == {module.removesuffix("_py") for module in twin - set(parts)} - for_annotations


def table() -> str:
    """Return the layers as a table in Markdown, without modules that do not exist yet."""
    rows = ["| layer | module | purpose |", "| ---: | --- | --- |"]
    files = [path.relative_to(PACKAGE).as_posix() for path in source_files()]
    existing = {entry_of(module_of(file)) for file in files}
    existing |= {
        module_of(file) for layer in LAYERS for file in layer if file.endswith((".pyx", ".pxd"))
    }
    number = 0
    for layer in LAYERS:
        files = [file for file in layer if module_of(file) in existing]
        number += bool(files)
        rows += [f"| {number} | `{file}` | {layer[file]} |" for file in files]
    return "".join(f"{row}\n" for row in rows)


def test_the_page_about_the_architecture_has_the_table_of_layers() -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    assert before
    assert rest.partition(MARKS[1])[0] == table(), "run python -m tests.test_imports"


def test_the_page_about_the_architecture_names_modules_that_exist() -> None:
    named = set(re.findall(r"`([\w/]+\.(?:pyx|pxd|py))`", PAGE.read_text(encoding="utf-8")))
    assert {"sockets/receiving.py", "asyncio/stream.py"} <= named
    sources = ROOT / "src" / "framecodec"  # an installed wheel has no .pyx
    folders = [ROOT, sources, sources / "asyncio", sources / "sockets"]
    for name in named:
        assert any((folder / name).exists() for folder in folders), name


if __name__ == "__main__":
    before, mark, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    PAGE.write_text(before + mark + table() + end + after, encoding="utf-8")
