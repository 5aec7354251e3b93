"""A supervisor to be killed: starts the services in the directory of its argument, prints their ids, waits."""

import json
import sys
import threading
import time
from pathlib import Path

from django_chain.embedded.postgres import Postgres
from django_chain.embedded.valkey import Valkey


def main() -> None:
    root = Path(sys.argv[1])
    servers = [Postgres(root, fast=True), Valkey(root)]
    # From threads that end at once: the services must not end with them.
    starts = [threading.Thread(target=server.start) for server in servers]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    sys.stdout.write(json.dumps({"pids": [server.pid for server in servers], "postgres": servers[0].url}) + "\n")
    sys.stdout.flush()
    time.sleep(60)


if __name__ == "__main__":
    main()
