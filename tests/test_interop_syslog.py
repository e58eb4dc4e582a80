"""Syslog over TCP: util-linux's logger and rsyslog send in both framings of RFC 6587, and receive.

``tests/interop/install.sh`` installs both. Where one is not installed, its tests are skipped.
"""

from __future__ import annotations

import queue
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import framecodec
from framecodec.catalogue import formats
from tests.interop.processes import TIMEOUT, find, serving

FRAMINGS = ["octet-counted", "traditional"]
LONG = "y" * 3000


@contextmanager
def collector() -> Iterator[tuple[int, queue.Queue[bytes]]]:
    """Serve the format "syslog"; yield the port, and a queue of the messages."""
    messages: queue.Queue[bytes] = queue.Queue()

    def handler(conn: framecodec.FrameSocket[Any]) -> None:
        for message in conn:
            messages.put(message)

    with framecodec.serve(handler, ("127.0.0.1", 0), formats.syslog) as server:
        yield server.address[1], messages


@pytest.mark.parametrize("framing", FRAMINGS)
def test_messages_of_logger(framing: str) -> None:
    logger = find("logger")
    with collector() as (port, messages):
        command = [logger, "--server", "127.0.0.1", "--port", str(port), "--tcp", "--rfc5424"]
        command += ["--octet-count"] if framing == "octet-counted" else []
        lines = ["hello", "12 is not a length", LONG]
        for line in lines:
            subprocess.run(
                [*command, "--size", "5000", "--tag", "it", "-p", "user.info", line],
                check=True,
                timeout=TIMEOUT,
            )
            message = messages.get(timeout=TIMEOUT)
            assert message.startswith(b"<14>1 ")
            assert message.endswith(line.encode())
        assert messages.empty()


CONFIGURATION = """
global(workDirectory="{folder}" maxMessageSize="8k")
module(load="imtcp")
template(name="plain" type="string" string="<%PRI%>%TIMESTAMP% %HOSTNAME% %syslogtag%%msg%")
ruleset(name="forward") {{
    action(type="omfwd" target="127.0.0.1" port="{collector}" protocol="tcp"
           TCP_Framing="{framing}" template="plain")
}}
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="forward")
"""


@pytest.mark.parametrize("framing", FRAMINGS)
def test_messages_to_and_from_rsyslog(framing: str, tmp_path: Path) -> None:
    rsyslogd = find("rsyslogd")
    configuration = tmp_path / "rsyslog.conf"
    texts = [b"hello", b"12 is not a length", LONG.encode(), *(b"number %d" % n for n in range(50))]
    with collector() as (collector_port, messages):

        def command(port: int) -> list[str]:
            configuration.write_text(
                CONFIGURATION.format(
                    folder=tmp_path, port=port, collector=collector_port, framing=framing
                )
            )
            pid_file = str(tmp_path / "pid")
            return [rsyslogd, "-n", "-f", str(configuration), "-i", pid_file]

        with (
            serving(command) as port,
            framecodec.connect(("127.0.0.1", port), formats.syslog, timeout=TIMEOUT) as conn,
        ):
            sent = [b"<13>Oct 11 22:14:15 here it: " + text for text in texts]
            conn.send_many(sent)
            received = [messages.get(timeout=TIMEOUT) for _ in sent]
    assert received == sent
