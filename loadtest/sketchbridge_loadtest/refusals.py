"""What hostile files cost: each is given to the SDK with a real server behind it, and the time to its answer printed.

What the SDK refuses by itself (nothing, and more than 32 MiB) never reaches the server: the table says so.

python -m sketchbridge_loadtest.refusals
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from sketchbridge_client import Client, InvalidArgument, InvalidInput
from sketchbridge_loadtest.hostile import HOSTILE_FILES
from sketchbridge_loadtest.machine import describe_machine
from sketchbridge_server import ServerConfig, TritonServer


def main() -> int:
    """Start a server of its own, send every file several times, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: %(default)s")
    parser.add_argument("--repeat", type=int, default=9, help="times each is sent (default: %(default)s)")
    arguments = parser.parse_args()
    config = ServerConfig(repositories=(arguments.repository,), http_port=0, grpc_port=0, metrics_port=0)
    files = {name: hostile.make() for name, hostile in HOSTILE_FILES.items()}
    files["200 MB of zeros"] = bytes(200_000_000)
    print(describe_machine())
    print("\n| file | bytes | median ms | worst ms | who answers, and what |\n|---|---:|---:|---:|---|")
    with TritonServer(config) as server, Client(server.endpoints.grpc_url) as client:
        for name, data in files.items():
            times_ms = []
            for _ in range(arguments.repeat):
                began = time.perf_counter()
                try:
                    client.sketch(data)
                    answer = "taken"
                except InvalidInput as exc:
                    answer = f"server: {exc}"
                except InvalidArgument as exc:
                    answer = f"SDK: {exc}"
                times_ms.append(1000 * (time.perf_counter() - began))
            print(
                f"| {name} | {len(data):,} | {np.median(times_ms):.1f} | {max(times_ms):.1f} | {answer} |", flush=True
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
