"""Serve MLflow's own pages of a store from this process.

`mlflow ui` imports MLflow twice, starts four workers, and starts processes for jobs that only its evaluations of language
models need. Here one process does everything, so that the pages answer sooner, take less memory and leave no process behind.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import warnings
from collections.abc import Callable
from pathlib import Path

import uvicorn

from pneumo.spec.errors import RequestError
from pneumo.tracking.store import Store

HOST = "127.0.0.1"

_PORTS = 20
"""Number of ports that are tried from the first one on."""

_SETTINGS = {"mlflow.workflowType_v1": '"machine_learning"', "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true"}
"""What a browser that was never here is told: show the pages for model training, not those for language models, whatever
link is followed; and do not begin with an assistant that covers a third of the page. MLflow stores both in the browser."""

_LONGEST_REQUEST = 2
"""Seconds that a request may still take after the server was told to stop."""


def listen(port: int) -> socket.socket:
    """Return a socket that listens on the first free port from `port` on, on this machine only.

    Raises:
        RequestError: None of them can be used.
    """
    for candidate in range(port, min(port + _PORTS, 65536)):
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, candidate))
            listening.listen()
        except OSError as error:
            listening.close()
            if error.errno != errno.EADDRINUSE:
                raise RequestError(f"--port {candidate}: cannot be used: {error.strerror}; give another") from None
            continue
        return listening
    raise RequestError(
        f"--port {port}: it and the {_PORTS - 1} ports behind it are taken by other programs; give another"
    )


def serve(store: Store, listening: socket.socket, answering: Callable[[], None]) -> None:
    """Serve the pages of a store, and return when a signal has stopped them.

    Args:
        store: MLflow. It must not be a server itself.
        listening: The socket to serve on.
        answering: Called once, as soon as the pages answer.

    Raises:
        KeyboardInterrupt: A signal arrived before the pages answered.
    """
    server = _Server(_config(store), answering)
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:  # uvicorn sends the signal again after it has closed everything
        if not server.started:
            raise


class _Server(uvicorn.Server):
    """A server that says when it answers."""

    def __init__(self, config: uvicorn.Config, answering: Callable[[], None]) -> None:
        super().__init__(config)
        self._answering = answering

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._answering()


def _config(store: Store) -> uvicorn.Config:
    # Read when the application is imported. A server may be configured in no other way.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    from mlflow.server import constants
    from mlflow.server.handlers import initialize_backend_stores
    from mlflow.utils.server_cli_utils import resolve_default_artifact_root

    artifacts = resolve_default_artifact_root(True, "", store.uri)
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: store.uri,
        constants.REGISTRY_STORE_URI_ENV_VAR: store.uri,
        constants.ARTIFACT_ROOT_ENV_VAR: artifacts,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        "_MLFLOW_SGI_NAME": "uvicorn",
    }
    with warnings.catch_warnings(action="ignore"):  # of what MLflow uses of starlette
        from mlflow.server.fastapi_app import app

    initialize_backend_stores(store.uri, store.uri, artifacts)
    _preset_browsers()
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=_LONGEST_REQUEST)


def _preset_browsers() -> None:
    """Let the first page store `_SETTINGS` in a browser that has none of its own."""
    from mlflow.server import app

    script = "".join(
        f"localStorage.getItem({json.dumps(key)}) ?? localStorage.setItem({json.dumps(key)}, {json.dumps(value)});"
        for key, value in _SETTINGS.items()
    )
    page = Path(str(app.static_folder), "index.html").read_text("utf-8")
    page = page.replace("<head>", f"<head><script>{script}</script>", 1)
    app.view_functions["serve"] = lambda: page
