"""The outbox: what was accepted for sending and has not left yet."""

from __future__ import annotations

import random

import pytest

from framecodec import Codec, MessageTooLargeError
from framecodec._outbox import _BUFFER_LIMIT, GATHER_SIZE, Outbox

CODEC = Codec.uint(4)
LARGE = bytes(range(256)) * 64  # 16 KiB


def drain(outbox: Outbox, sizes: list[int]) -> bytes:
    """Everything held, dropped in steps of these sizes (over and over)."""
    left = b""
    step = 0
    while outbox.size:
        data = b"".join(outbox.buffers())
        count = min(sizes[step % len(sizes)], len(data))
        left += data[:count]
        outbox.sent(count)
        step += 1
    return left


def test_buffers_of_an_empty_outbox() -> None:
    outbox = Outbox(CODEC)
    assert outbox.size == 0
    assert outbox.buffers() == []


def test_buffers_join_small_messages() -> None:
    outbox = Outbox(CODEC)
    outbox.put(b"one")
    outbox.put_many([b"two", bytearray(b"three"), b""])
    assert outbox.buffers() == [CODEC.encode_many([b"one", b"two", b"three", b""])]
    assert outbox.size == 4 * 4 + 3 + 3 + 5


def test_put_many_takes_the_list_as_it_was_when_a_build_changes_it() -> None:
    def build(message: memoryview) -> bytes:
        del messages[:1]
        return bytes([len(message) // 256])

    sent = [b"a" * 256, bytearray(b"b" * 512), b"c" * 256 * 20, b"d" * 256]
    messages = sent.copy()
    outbox = Outbox(Codec.custom(lambda view: None, build))
    outbox.put_many(messages)
    assert messages == []
    assert drain(outbox, [10**6]) == b"".join(bytes([len(m) // 256]) + m for m in sent)


def test_buffers_refer_to_a_large_message() -> None:
    outbox = Outbox(CODEC)
    outbox.put_many([b"one", LARGE, b"two"])
    buffers = outbox.buffers()
    assert buffers == [
        CODEC.encode(b"one") + CODEC.encode(LARGE)[:4],
        LARGE,
        CODEC.encode(b"two"),
    ]
    assert buffers[1] is LARGE


def test_buffers_join_a_trailer_with_the_next_frame() -> None:
    codec = Codec.text(b":", trailer=b",")
    outbox = Outbox(codec)
    outbox.put_many([LARGE, b"x"])
    assert outbox.buffers() == [b"16384:", LARGE, b",1:x,"]


@pytest.mark.parametrize("size", [GATHER_SIZE - 1, GATHER_SIZE, GATHER_SIZE + 1])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_buffers_are_the_bytes_of_encode(size: int, kind: type) -> None:
    message = random.Random(size).randbytes(size)
    outbox = Outbox(CODEC)
    outbox.put(kind(message))
    outbox.put_many([kind(message), b"small"])
    assert drain(outbox, [1, 7, 4096]) == CODEC.encode_many([message, message, b"small"])
    assert outbox.buffers() == []


@pytest.mark.parametrize("cut", range(0, 33))
def test_sent_drops_bytes_at_every_cut(cut: int) -> None:
    outbox = Outbox(CODEC)
    outbox.put(b"hello")
    outbox.put_many([b"", b"four", b"seven77"])
    whole = b"".join(outbox.buffers())
    cut = min(cut, len(whole))
    outbox.sent(cut)
    assert b"".join(outbox.buffers()) == whole[cut:]
    assert outbox.size == len(whole) - cut
    assert all(outbox.buffers())


def test_put_after_a_cut_frame_follows_it() -> None:
    outbox = Outbox(CODEC)
    outbox.put(b"first")
    outbox.sent(2)
    outbox.put(b"second")
    assert b"".join(outbox.buffers()) == CODEC.encode(b"first")[2:] + CODEC.encode(b"second")


def test_put_many_takes_none_if_one_is_invalid() -> None:
    codec = Codec.uint(4, max_message_size=8000)
    outbox = Outbox(codec)
    outbox.put(b"before")
    for messages in ([b"good", b"x" * 9000], [b"x" * 8000, "text"], [b"good", 5], iter([b"a", 1])):
        with pytest.raises((MessageTooLargeError, TypeError)):
            outbox.put_many(messages)
        assert b"".join(outbox.buffers()) == codec.encode(b"before")
        assert outbox.size == 10
    with pytest.raises(TypeError):
        outbox.put("text")
    assert outbox.size == 10


def test_put_takes_specials() -> None:
    codec = Codec.text(b"\r\n", magic=b"$", trailer=b"\r\n", specials={-1: None})
    outbox = Outbox(codec)
    outbox.put_many([b"a", None, LARGE])
    outbox.put(None)
    assert b"".join(outbox.buffers()) == codec.encode_many([b"a", None, LARGE, None])


def test_buffers_are_never_more_than_one_system_call_takes() -> None:
    outbox = Outbox(CODEC)
    messages = [bytes([n % 256]) * GATHER_SIZE for n in range(2000)]
    outbox.put_many(messages)
    assert len(outbox.buffers()) <= _BUFFER_LIMIT
    assert drain(outbox, [5_000_000]) == CODEC.encode_many(messages)


def test_own_copies_a_borrowed_message() -> None:
    message = bytearray(LARGE)
    outbox = Outbox(CODEC)
    outbox.put(message)
    outbox.put(memoryview(message).toreadonly())
    outbox.sent(5)
    outbox.own()
    message[:] = bytes(len(message))
    message.extend(b"the buffer is not exported any more")
    assert b"".join(outbox.buffers()) == CODEC.encode_many([LARGE, LARGE])[5:]


def test_own_does_not_copy_immutable_messages() -> None:
    outbox = Outbox(CODEC)
    outbox.put(LARGE)
    outbox.put(bytearray(LARGE))
    outbox.own()
    assert outbox.buffers()[1] is LARGE


@pytest.mark.parametrize("count", [-1, 10])
def test_sent_refuses_more_than_is_held(count: int) -> None:
    outbox = Outbox(CODEC)
    outbox.put(b"hello")
    with pytest.raises(ValueError, match="9 bytes are held"):
        outbox.sent(count)
    assert outbox.size == 9


def test_outbox_loses_nothing_with_random_messages_and_cuts() -> None:
    rng = random.Random(1)
    outbox = Outbox(CODEC)
    put, left = b"", b""
    for _ in range(300):
        messages = [rng.randbytes(rng.choice([0, 3, 100, 4095, 4096, 9000])) for _ in range(3)]
        outbox.put_many(messages)
        put += CODEC.encode_many(messages)
        for _ in range(2):
            data = b"".join(outbox.buffers())
            count = rng.randint(0, len(data))
            left += data[:count]
            outbox.sent(count)
        assert outbox.size == len(put) - len(left)
    left += drain(outbox, [10_000])
    assert left == put


def test_put_unframed_takes_empty_buffers() -> None:
    outbox = Outbox(Codec.uint(1))
    outbox.put_unframed(bytearray())
    outbox.put_unframed(b"")
    assert (outbox.size, outbox.buffers()) == (0, [])
    outbox.put_unframed(bytearray(b"ab"))
    assert outbox.buffers() == [b"ab"]
