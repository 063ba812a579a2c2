"""llama.cpp's own HTTP server as a process: python -m tests.support.llama_server MODEL.gguf PORT"""

import sys
import threading

from xllamacpp import CommonParams, Server


def main(model: str, port: int) -> None:
    """Serve the model at 127.0.0.1 as `tiny`, two at once, until killed."""
    params = CommonParams()
    params.model.path = model
    params.model_alias = {"tiny"}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = 0  # what the model says
    params.n_parallel = 2
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup = False
    server = Server(params)  # serves from a thread of its own, until it is collected
    threading.Event().wait()
    del server


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
