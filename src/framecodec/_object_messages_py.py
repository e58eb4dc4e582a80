"""Messages that are objects, in the splitter of the Python engine.

The specification is for both engines. `loads` is called for each message at the end of the call
that completed it. Where it refuses one, the call returns the objects before it; the next call
raises the error, and the one after that continues. Every call takes its bytes, also one that raises
an `InvalidMessageError`. Other exceptions of `loads` stick, as those of a custom codec's ``parse``
do.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import Any

from . import _error_texts, errors
from ._keeping_reader_py import KeepingReader

__all__ = ["ObjectMessages"]


class ObjectMessages(KeepingReader):
    """The part of the Python splitter that makes objects of messages."""

    __slots__ = ("_busy", "_lock", "_objects", "_objects_thread", "_undelivered")

    _objects: Any  # their functions; None where messages are bytes
    _objects_thread: int  # that which takes bytes for them, and gets `bytes` messages; 0 if none
    _undelivered: Any  # `HeldMessages`: what follows a refused message
    _busy: bool
    _lock: Any

    def _take_objects(self, take: Callable[[Any], list[Any]], argument: Any) -> list[Any]:
        """Call a method that takes bytes, and return the objects of its messages."""
        messages: list[Any] = []
        loaded: list[Any] = []  # first: there may be no memory for it later
        taken = False
        try:
            try:
                self._lock.acquire()
                if self._busy:
                    raise _error_texts.reentered()
                self._objects_thread = get_ident()
                try:
                    if self._undelivered is None or self._error is None:
                        messages = take(argument)
                except BaseException:
                    if self._undelivered is None or self._error is None:
                        raise
                finally:
                    self._objects_thread = 0
                    del argument  # the frame of an error would hold it
                held = self._undelivered
                if held is not None:
                    held.taking = held.telling = False
                taken = True
                loaded = self._load(messages, loaded)
            finally:
                try:  # noqa: SIM105 (that would be a `with`)
                    self._lock.release()
                except RuntimeError:  # a signal handler has interrupted acquire()
                    pass
        except errors.InvalidMessageError:
            raise
        except BaseException as error:
            if taken:
                self._keep_error(error, messages)
            raise
        return loaded

    def _switch_objects(self, codec: Any) -> list[Any]:
        """Switch to another codec, and return what is complete under it."""
        wants_headers, notes_gaps = self._wants_headers, self._notes_gaps
        objects = None if self._raw else getattr(codec, "_objects", None)
        before = b""
        loaded: list[Any] = []
        if self._undelivered is not None:
            before = self._undelivered.travelled(self, self._unfinished())
        try:
            self._wants_headers = wants_headers or objects is not None
            self._notes_gaps = notes_gaps or objects is not None
            messages = self._switch(codec, before)
        except BaseException:
            self._wants_headers, self._notes_gaps = wants_headers, notes_gaps
            raise
        self._objects = objects
        if objects is None:
            return messages
        try:
            return self._load(messages, loaded)
        except errors.InvalidMessageError:
            raise
        except BaseException as error:
            self._keep_error(error, messages)
            raise

    def _switch(self, codec: Any, before: bytes) -> list[Any]:
        """Switch as `Splitter.switch` does, for messages that are bytes."""
        raise NotImplementedError

    def _load(self, messages: list[Any], objects: list[Any]) -> list[Any]:
        """Return the objects of messages, up to a refused one; hold the others.

        Args:
            messages: The messages.
            objects: An empty list for the objects.
        """
        loads = self._objects.loads
        self._busy = True
        held = self._undelivered
        try:
            if held is not None:
                return self._load_held(held, messages)
            for message in messages:
                objects.append(loads(message))
        except BaseException as cause:
            if held is not None:
                raise
            objects = self._keep_refused(cause, messages, objects)
        finally:
            self._busy = False
        return objects

    def _load_held(self, held: Any, messages: list[Any]) -> list[Any]:
        if messages:
            try:
                held.add(self, messages, self._headers)
            except BaseException as error:  # raised after the held ones
                self._lose_messages(error)
        try:
            objects: list[Any] = held.take()
        except errors.InvalidMessageError:
            raise
        except BaseException as error:
            held.fail(error)  # it sticks, because the bytes of this call are taken
            raise
        finally:
            # No call from here on, in which a signal handler could raise.
            if held.finished:
                self._undelivered = None
        return objects

    def _keep_refused(
        self, cause: BaseException, messages: list[Any], objects: list[Any]
    ) -> list[Any]:
        """Hold the messages after those with objects; raise if there are none of those."""
        index, headers = len(objects), self._headers
        try:
            held = self._objects.hold(self._choice_layout)
            held.add(
                self,
                messages[index:],
                None if headers is None else headers[index : len(messages)],
            )
            held.refuse(cause)
        except BaseException as error:
            self._lose_messages(error)
            if not objects:
                raise
        else:
            self._undelivered = held
            del messages, cause
            if not objects:
                return self._load_held(held, [])
        return objects

    def _keep_error(self, error: BaseException, messages: list[Any]) -> None:
        """Make an error sticky that came after bytes were taken, unless it is already.

        The caller does not get the objects. A signal handler may have raised it after any call.
        """
        held = self._undelivered
        if error is self._error or (held is not None and error is held.error):
            return
        if held is not None:
            held.fail(error)
        if messages:
            self._lose_messages(error)
        else:
            self._keep_interruption(error)

    def _lose_messages(self, error: BaseException) -> None:
        """Make an error sticky, for which messages are lost: `detach` cannot return them."""
        self._lost = True
        self._gather_end = 0
        if self._error is None:
            self._error, self._failed_in = error, get_ident()
