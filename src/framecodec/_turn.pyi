# The docstrings are those of the twin, _turn_py.
from typing import Any, final

__all__ = ["Turn"]

@final
class Turn:
    @property
    def messages(self) -> list[bytes]: ...
    room: int
    quick: int
    paused: bool
    sent: Any
    def __init__(self, protocol: Any, room: int) -> None: ...
    def send(self, message: object, /) -> None: ...
    def send_and_wait(self, message: object, /) -> Any: ...
    def clear(self) -> None: ...
