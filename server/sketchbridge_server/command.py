"""The `serve` command: its flags, and what a shell sees of a server's life."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from sketchbridge_server.config import (
    DEFAULT_ADDRESS,
    DEFAULT_GRACE_PERIOD_S,
    DEFAULT_GRPC_PORT,
    DEFAULT_HTTP_PORT,
    DEFAULT_METRICS_PORT,
    DEFAULT_READY_TIMEOUT_S,
    ServerConfig,
)
from sketchbridge_server.errors import InvalidConfiguration, ServeError
from sketchbridge_server.serving import serve

DEFAULT_REPOSITORY = Path("model_repository")
EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_WRONG_CALL = 2

DESCRIPTION = """\
Serve a model repository with NVIDIA Triton Inference Server, until Ctrl-C or SIGTERM.

The Triton on PATH is used, as in NVIDIA's container image; otherwise the one of the nvidia-pytriton wheel,
with ONNX Runtime and OpenVINO on the CPU. The command says so when every model is ready, and fails if any is not."""

EXAMPLES = """\
examples:
  sketchbridge serve
  sketchbridge serve --repository ./model_repository --repository ./my_models
  sketchbridge serve --http-port 9000 --grpc-port 9001 --metrics-port 9002
  sketchbridge serve --address 0.0.0.0          # open to the network: there is no password, put a gateway in front
  sketchbridge serve --model-config-name gpu    # configs/gpu.pbtxt of each model that has one

exit status: 0 after a clean stop, 1 if the server failed or was killed, 2 if the call was wrong"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `serve` to a parser, with its description and examples."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument(
        "--repository",
        type=Path,
        action="append",
        metavar="FOLDER",
        help=f"a model repository; repeat it for more than one (default: ./{DEFAULT_REPOSITORY})",
    )
    parser.add_argument(
        "--address",
        default=DEFAULT_ADDRESS,
        help="where to listen, an IPv4 address or a name of this machine; change it to be reached from other machines "
        "(default: %(default)s)",
    )
    ports = (("http", DEFAULT_HTTP_PORT), ("grpc", DEFAULT_GRPC_PORT), ("metrics", DEFAULT_METRICS_PORT))
    for name, port in ports:
        parser.add_argument(
            f"--{name}-port", type=int, default=port, metavar="PORT", help="0 picks a free one (default: %(default)s)"
        )
    parser.add_argument(
        "--model-config-name",
        metavar="NAME",
        help="serve configs/NAME.pbtxt of each model that has one, as `gpu` (default: config.pbtxt)",
    )
    parser.add_argument(
        "--ready-timeout",
        dest="ready_timeout_s",
        type=float,
        default=DEFAULT_READY_TIMEOUT_S,
        metavar="SECONDS",
        help="how long all models may take to load; raise it for many or large ones (default: %(default)g)",
    )
    parser.add_argument(
        "--grace-period",
        dest="grace_period_s",
        type=int,
        default=DEFAULT_GRACE_PERIOD_S,
        metavar="SECONDS",
        help="how long requests in flight may take to finish at the end (default: %(default)s)",
    )
    parser.add_argument("--log-file", type=Path, metavar="FILE", help="append Triton's whole log to this file")
    parser.add_argument("--verbose", action="store_true", help="show Triton's own messages, not only its warnings")


def run(arguments: argparse.Namespace) -> int:
    """Serve as the parsed flags say; answers go to stdout, warnings and errors to stderr. Returns the exit status."""
    logging.basicConfig(format="%(message)s", level=logging.INFO if arguments.verbose else logging.WARNING)
    try:
        config = ServerConfig(
            repositories=tuple(arguments.repository or (DEFAULT_REPOSITORY,)),
            address=arguments.address,
            http_port=arguments.http_port,
            grpc_port=arguments.grpc_port,
            metrics_port=arguments.metrics_port,
            model_config_name=arguments.model_config_name,
            ready_timeout_s=arguments.ready_timeout_s,
            grace_period_s=arguments.grace_period_s,
            log_path=arguments.log_file,
        )
        clean = serve(config, write=_write)
    except InvalidConfiguration as exc:
        sys.stderr.write(f"error: {exc}\n")
        return EXIT_WRONG_CALL
    except ServeError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return EXIT_FAILED
    return EXIT_DONE if clean else EXIT_FAILED


def _write(text: str) -> None:
    """That nobody reads any more (Ctrl-C ends `| tee` first), or a full disk, must not cut requests in flight off."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered has to go somewhere
