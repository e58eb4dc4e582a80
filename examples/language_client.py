"""A client of a language server: JSON-RPC over the pipes of a process.

python examples/language_client.py pylsp        (pip install python-lsp-server)
python examples/language_client.py COMMAND ARGUMENTS...
"""

import asyncio
import os
import sys

from framecodec import formats
from framecodec.asyncio import open_process

codec = formats.lsp.as_json()


class LanguageClient:
    def __init__(self, stream):
        self.stream = stream
        self.last_id = 0

    async def notify(self, method, **params):
        await self.stream.send({"jsonrpc": "2.0", "method": method, "params": params})

    async def request(self, method, **params):
        self.last_id += 1
        request = {"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params}
        await self.stream.send(request)
        async for message in self.stream:
            if "method" not in message and message.get("id") == self.last_id:
                if "error" in message:
                    raise RuntimeError(message["error"]["message"])
                return message["result"]
            if "method" in message and "id" in message:  # the server asks: not supported here
                error = {"code": -32601, "message": "method not found"}
                await self.stream.send({"jsonrpc": "2.0", "id": message["id"], "error": error})
        raise EOFError("the language server has ended")


async def main(command):
    async with open_process(*command, codec=codec) as (process, stream):
        client = LanguageClient(stream)
        found = await client.request(
            "initialize", processId=os.getpid(), rootUri=None, capabilities={}
        )
        print("server:", found.get("serverInfo", {}).get("name"))
        print("knows hover:", bool(found["capabilities"].get("hoverProvider")))
        await client.notify("initialized")
        await client.request("shutdown")
        await client.notify("exit")
        print("exit status:", await process.wait())


asyncio.run(main(sys.argv[1:]))
