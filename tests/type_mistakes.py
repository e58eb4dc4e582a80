"""Mistakes that type checkers must find: each line that ends with ``# mistake`` is an error.

`tests.type_mistakes_check` runs mypy and pyright on this file, in the session `types` of nox.
"""

from framecodec import Codec, formats

kafka: Codec = formats.kafka
kafka = formats.kafkaa  # mistake

codec = Codec.uint(4, max_message_size=10)
codec.replace(max_message_size=1)
codec.replace(max_mesage_size=1)  # mistake
codec.replace(max_message_size="1")  # mistake
Codec.uint(4, max_mesage_size=1)  # mistake
Codec.uint(4, "middle")  # mistake
codec.as_json().decode("text")  # mistake

size: int = codec.encode(b"")  # mistake
frame: bytes = codec.encode(b"")
