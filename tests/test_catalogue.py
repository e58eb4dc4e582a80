"""The catalogue of known protocols.

``python -m tests.test_catalogue`` writes what is generated from it: ``catalogue.pyi`` for type
checkers and editors, and the table in docs/formats.md.
"""

from __future__ import annotations

import ast
import copy
import importlib
import keyword
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import framecodec.catalogue
from framecodec import Codec, FrameError
from framecodec.catalogue import Catalogue, Format, PktLine, formats
from framecodec.errors import MessageTooLargeError

ROOT = Path(__file__).parents[1]
STUB = Path(framecodec.catalogue.__file__).with_suffix(".pyi")
PAGE = ROOT / "docs" / "formats.md"

PROMISED = [
    "ascii4",
    "struct-i",
    "netstring",
    "protobuf",
    "erlang1",
    "erlang2",
    "erlang4",
    "kafka",
    "thrift",
    "dns",
    "grpc",
    "postgres",
    "postgres-startup",
    "mysql",
    "mongodb",
    "tls",
    "http2",
    "amqp",
    "amqp1",
    "bgp",
    "docker",
    "cassandra",
    "bitcoin",
    "oncrpc",
    "multiprocessing",
    "pkt-line",
    "syslog",
    "resp-bulk",
    "lsp",
    "mqtt",
    "minecraft",
    "tpkt",
    "diameter",
    "modbus",
    "stun",
    "smb",
    "memcached",
    "zmtp",
    "native-messaging",
    "smpp",
    "9p",
]


# --- the catalogue --------------------------------------------------------------------------------


def test_formats_has_every_promised_name() -> None:
    assert set(PROMISED) <= set(formats)


@pytest.mark.parametrize("name", list(formats))
def test_formats_finds_each_codec_by_name_and_as_an_attribute(name: str) -> None:
    codec = formats[name]
    assert isinstance(codec, Codec)
    assert name in formats
    attribute = name.replace("-", "_")
    assert getattr(formats, attribute) is codec
    assert (attribute in dir(formats)) == attribute.isidentifier()
    row = formats.describe(name)
    assert (row.name, row.codec) == (name, codec)
    for text in (row.description, row.specification):
        assert text
        assert "\n" not in text


@pytest.mark.parametrize("name", list(formats))
def test_formats_has_no_name_that_hides_a_method(name: str) -> None:
    assert not hasattr(Catalogue, name.replace("-", "_"))


def test_formats_use_functions_only_where_a_shape_needs_them() -> None:
    # Each costs a call of Python for each message: names leave this set, and none comes in that
    # the engine's parameters can express.
    assert {name for name in formats if formats[name].kind == "custom"} <= {
        *("ber", "cassandra-v5", "dbus", "fastcgi", "x11"),
        *("giop", "multiprocessing", "websocket", "zmtp"),
        *("dnp3", "esphome", "http1", "memcached-text", "nats", "resp", "stomp"),
    }


@pytest.mark.parametrize("name", list(formats))
def test_formats_take_another_limit(name: str) -> None:
    if formats[name].kind != "fixed":
        assert formats[name].replace(max_message_size=None).max_message_size is None


def limits_of_alternatives(codec: Codec) -> Iterator[int | None]:
    for alternative in codec.parameters["alternatives"].values():
        if alternative.kind != "fixed":
            yield alternative.max_message_size
        if alternative.kind == "choice":
            yield from limits_of_alternatives(alternative)


def test_formats_that_are_choices_leave_the_limit_to_the_choice() -> None:
    # The smaller limit holds: with the default one, replace() could not raise it.
    default = Codec.uint().max_message_size
    choices = [name for name in formats if formats[name].kind == "choice"]
    assert "postgres" in choices
    for name in choices:
        assert default not in limits_of_alternatives(formats[name]), name


def test_formats_that_are_choices_carry_messages_up_to_a_raised_limit(engine: ModuleType) -> None:
    message = b"d" + bytes(17 * 1024 * 1024)
    with pytest.raises(MessageTooLargeError):
        engine.Encoder(formats.postgres).encode(message)
    raised = formats.postgres.replace(max_message_size=len(message))
    assert engine.Splitter(raised).feed(engine.Encoder(raised).encode(message)) == [message]


def test_formats_is_a_mapping() -> None:
    assert len(formats) == len(list(formats)) == len(formats.table())
    assert dict(formats) == {row.name: row.codec for row in formats.table()}
    assert formats.get("no such format") is None
    assert "no such format" not in formats
    assert repr(formats) == f"<Catalogue of {len(formats)} formats>"


def test_formats_suggests_similar_names_for_an_unknown_one() -> None:
    with pytest.raises(KeyError, match=r"'kafak'.*did you mean kafka"):
        formats["kafak"]
    with pytest.raises(AttributeError, match=r"'postgrez'.*did you mean postgres"):
        _ = formats.postgrez
    with pytest.raises(KeyError, match=r"no format 'xyzzy' in the catalogue['\"]$"):
        formats.describe("xyzzy")
    assert not hasattr(formats, "_private")


def test_Catalogue_refuses_two_formats_with_one_name() -> None:
    row = formats.describe("kafka")
    with pytest.raises(ValueError, match="kafka"):
        Catalogue([row, row])


def test_formats_finds_aliases_but_does_not_list_them() -> None:
    aliases = formats.aliases()
    assert aliases["zeromq"] == "zmtp"
    assert aliases["postgresql"] == "postgres"
    for alias, name in aliases.items():
        assert formats[alias] is formats[name]
        assert getattr(formats, alias.replace("-", "_")) is formats[name]
        assert formats.describe(alias).name == name
        assert alias in formats
        assert alias not in list(formats)
        assert framecodec.parse_codec(alias) == formats[name]
    with pytest.raises(KeyError, match="did you mean postgresql"):
        formats["postgrezql"]


def test_Catalogue_refuses_an_alias_that_is_a_name_or_has_no_row() -> None:
    row = formats.describe("kafka")
    with pytest.raises(ValueError, match="'kafka'"):
        Catalogue([row], {"kafka": "kafka"})
    with pytest.raises(ValueError, match="'events' means 'kafak'"):
        Catalogue([row], {"events": "kafak"})


def stub() -> str:
    """Return ``catalogue.pyi``: the catalogue with each format and alias as an attribute."""
    lines = [
        "# Generated from the catalogue by: python -m tests.test_catalogue",
        "from collections.abc import Iterable, Iterator, Mapping",
        "from typing import Literal, final, overload",
        "",
        "from ._catalogue import Format as Format",
        "from ._catalogue import PktLine as _PktLine",
        "from ._catalogue import did_you_mean as did_you_mean",
        "from .codec import Codec",
        "",
        '__all__ = ["Catalogue", "Format", "PktLine", "formats"]',
        "",
        "PktLine = _PktLine",
        "",
        "@final",
        "class Catalogue(Mapping[str, Codec]):",
        "    PktLine = _PktLine",
        "    def __init__(",
        "        self, rows: Iterable[Format], aliases: Mapping[str, str] | None = None",
        "    ) -> None: ...",
        *items(),
        "    def __iter__(self) -> Iterator[str]: ...",
        "    def __len__(self) -> int: ...",
        "    def describe(self, name: str) -> Format: ...",
        "    def table(self) -> list[Format]: ...",
        "    def aliases(self) -> dict[str, str]: ...",
    ]
    for row in formats.table():
        lines += attribute(row.name, row.codec, row.description)
    for alias, name in formats.aliases().items():
        lines += attribute(alias, formats[name], f"another name of {name}")
    return "\n".join([*lines, "", "formats: Catalogue", ""])


def items() -> list[str]:
    """Return the types of ``formats["name"]``."""
    lines = []
    for kind in sorted({type_of(row.codec) for row in formats.table()} - {"Codec"}):
        names = ", ".join(f'"{row.name}"' for row in formats.table() if type_of(row.codec) == kind)
        lines += [
            "    @overload",
            "    def __getitem__(  # type: ignore[overload-overlap]",
            f"        self, name: Literal[{names}]",
            f"    ) -> {kind}: ...",
        ]
    return [*lines, "    @overload", "    def __getitem__(self, name: str) -> Codec: ..."]


def attribute(name: str, codec: Codec, text: str) -> list[str]:
    identifier = name.replace("-", "_")
    if not identifier.isidentifier() or keyword.iskeyword(identifier):
        return []
    return [f"    {identifier}: {type_of(codec)}", f'    """{text}"""']


def type_of(codec: Codec) -> str:
    """Return the type of a codec, by the types of its special messages."""
    kinds = {type(special) for special in (codec.parameters["specials"] or {}).values()}
    names = sorted({type(None): "None", PktLine: "_PktLine"}[kind] for kind in kinds)
    return f"Codec[{' | '.join(['bytes', *names])}]" if names else "Codec"


def test_the_stub_of_the_catalogue_is_current() -> None:
    assert STUB.read_text("ascii") == stub(), "run python -m tests.test_catalogue"


def test_the_stub_of_the_catalogue_has_its_public_members() -> None:
    # A type checker that reads the stub finds nothing else.
    (body,) = (node.body for node in ast.parse(stub()).body if isinstance(node, ast.ClassDef))
    names = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    names |= {node.target.id for node in body if isinstance(node, ast.AnnAssign)}
    public = {name for name in dir(formats) if not name.startswith("_")}
    assert public - {"PktLine", "get", "items", "keys", "values"} <= names
    assert "__getattr__" not in stub()  # a misspelled name must be a type error


def test_formats_is_the_catalogue_however_it_is_imported() -> None:
    import framecodec.formats
    from framecodec.formats import PktLine as imported
    from framecodec.formats import kafka

    assert framecodec.formats is formats
    assert importlib.import_module("framecodec.formats") is formats
    assert imported is PktLine
    assert kafka is formats["kafka"]
    with pytest.raises(ImportError, match="kafak"):
        from framecodec.formats import kafak  # noqa: F401
    assert not any(Path(framecodec.__file__).parent.glob("formats*"))


@pytest.mark.parametrize("name", list(formats))
def test_formats_have_codecs_that_pickle_copy_and_hash(name: str) -> None:
    codec = formats[name]
    for twin in (pickle.loads(pickle.dumps(codec)), copy.copy(codec), copy.deepcopy(codec)):
        assert twin == codec
        assert hash(twin) == hash(codec)
    assert codec in {codec}


def test_formats_pickles_with_its_rows_and_its_enum() -> None:
    assert pickle.loads(pickle.dumps(formats)) == formats
    assert copy.deepcopy(formats).table() == formats.table()
    for member in PktLine:
        assert pickle.loads(pickle.dumps(member)) is member
        assert repr(member) == f"formats.PktLine.{member.name}"
        assert eval(repr(member), {"formats": formats}) is member
    row = formats.describe("zmtp")
    assert isinstance(row, Format)
    assert pickle.loads(pickle.dumps(row)) == row


def test_PktLine_has_the_lines_of_git_without_data() -> None:
    assert formats.PktLine is PktLine
    assert formats.pkt_line.split(b"0006a\n000100000002") == (
        [b"a\n", PktLine.DELIM, PktLine.FLUSH, PktLine.RESPONSE_END],
        18,
    )
    assert formats.pkt_line.encode_many([PktLine.FLUSH, b"a", PktLine.DELIM]) == b"00000005a0001"


def test_postgres_messages_begin_with_their_type_byte() -> None:
    query = b"Q" + b"SELECT 1\0"
    assert formats.postgres.encode(query) == b"Q" + b"\0\0\0\x0d" + b"SELECT 1\0"
    assert formats.postgres.decode(formats.postgres.encode(query)) == query


@given(st.sampled_from(list(formats)), st.binary(max_size=300))
def test_formats_decode_what_they_encode(name: str, message: bytes) -> None:
    codec = formats[name]
    try:
        frame = codec.encode(message)
    except FrameError:
        return
    assert codec.decode(frame) == message
    assert codec.splitter(raw=True).feed(frame) == [frame]


@given(st.sampled_from(list(formats)), st.binary(max_size=40))
def test_formats_encode_what_they_decode_to_the_same_message(name: str, data: bytes) -> None:
    codec = formats[name]
    try:
        messages, _ = codec.split(data)
    except FrameError:
        return
    for message in messages:
        assert codec.decode(codec.encode(message)) == message


def write_generated_files() -> None:
    from tests.test_docs import table_row

    STUB.write_text(stub(), "ascii")
    page = PAGE.read_text("utf-8")
    start = page.index("\n| `", page.index("\n## The catalogue\n")) + 1
    PAGE.write_text(page[:start] + "".join(f"{table_row(name)}\n" for name in formats), "utf-8")


if __name__ == "__main__":
    write_generated_files()


def test_every_module_of_framecodec_can_be_hashed() -> None:
    modules = [module for name, module in sys.modules.items() if name.startswith("framecodec")]
    assert formats in modules
    assert len(set(modules)) > 1


def test_the_rows_are_loaded_when_the_catalogue_is_first_used() -> None:
    program = (
        "import sys, framecodec\n"
        "assert 'framecodec._formats' not in sys.modules and 'logging' not in sys.modules\n"
        "assert framecodec.formats.kafka == framecodec.formats['kafka']\n"
        "assert 'framecodec._formats' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_catalogue_that_is_not_loaded_yet_is_whole_in_every_use() -> None:
    def fresh() -> Catalogue:
        return Catalogue._loaded_by(lambda: (formats.table(), formats.aliases()))

    assert list(fresh()) == list(formats)
    assert len(fresh()) == len(formats)
    assert "redis" in fresh()
    assert fresh() == formats
    assert dir(fresh()) == dir(formats)
    assert pickle.loads(pickle.dumps(fresh())) == formats
    assert copy.copy(fresh()) == formats
    assert fresh().pkt_line == formats.pkt_line
    with pytest.raises(AttributeError, match="did you mean kafka"):
        _ = fresh().kafkaa
