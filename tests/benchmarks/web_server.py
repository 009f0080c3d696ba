"""The server that `web.py` measures, in a process of its own: `web_server.py STORE`."""

import asyncio
import signal
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "web"))


async def main(store_url: str) -> None:
    """Serve until SIGTERM."""
    from measured import Gated
    from serving import Server, by_header

    from llama_index_hitl.runner import Runner
    from llama_index_hitl.stores import SqlStore
    from llama_index_hitl.web import create_app

    store = SqlStore(store_url)
    app = create_app(Runner(store, {"gated": Gated(timeout=None)}), authenticate=by_header)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Server(app)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.stop)
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        await server.serve(sockets=[listening])
    await store.close()


asyncio.run(main(sys.argv[1]))
