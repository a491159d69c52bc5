"""`sketchbridge export`: arguments in, one library call, the answer out. Imports nothing heavy until it runs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sketchbridge_export.errors import ExportError, OptionInvalid

DEFAULT_REPOSITORY = Path("model_repository")
# The keys of FAMILIES, written again because importing those takes torch; a test holds them equal.
FAMILY_NAMES = ("junyanz_unet", "renderx_unet")

_DESCRIPTION = """\
Turn the checkpoint of a Pix2Pix-family generator into a new version of a model in a Triton model repository.

The family, depth, widths and normalisation are read from the weights. The exported network is compared with the
checkpoint on the same pictures, and only published when they agree. A running Triton never sees half of it; restart
`sketchbridge serve` to serve it.
"""
_EPILOG = """\
examples:
  sketchbridge export latest_net_G.pth --name shoes
  sketchbridge export faces.pt --name faces --repository models --norm running --weights fp16
  sketchbridge export faces.pt --name faces --repository models --pictures sketches/ --json | jq .parity

exit status: 0 exported, 1 the export failed and nothing was published, 2 the call was wrong
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the arguments, description and examples of the command."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="file written by torch.save")
    parser.add_argument("--name", required=True, help="name of the model that callers ask for, such as `shoes`")
    parser.add_argument(
        "--repository",
        type=Path,
        default=DEFAULT_REPOSITORY,
        metavar="FOLDER",
        help="the model repository; made if it is missing (default: ./%(default)s)",
    )
    parser.add_argument(
        "--family",
        help=f"kind of checkpoint: {' or '.join(FAMILY_NAMES)} (default: recognised from its weights)",
    )
    parser.add_argument(
        "--norm",
        choices=("running", "instance"),
        help="statistics to normalise with: `running` are those of the training, `instance` each picture's own, as the "
        "pix2pix reference paints (default: what the checkpoint says, else what its family does)",
    )
    parser.add_argument(
        "--weights",
        choices=("fp32", "fp16"),
        default="fp32",
        help="precision the weights are stored in; fp16 halves the file and computes in FP32 all the same "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="FOLDER",
        help="folder of sketches to compare on (default: the drawings that the package ships)",
    )
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Export; steps go to stderr, the answer to stdout. Returns the exit status."""
    from sketchbridge_export.export import export_checkpoint  # noqa: PLC0415 - torch takes seconds to import

    def progress(line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    try:
        report = export_checkpoint(
            arguments.checkpoint,
            name=arguments.name,
            repository=arguments.repository,
            family=arguments.family,
            norm=arguments.norm,
            weights=arguments.weights,
            pictures=arguments.pictures,
            progress=progress,
        )
    except ExportError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 2 if isinstance(exc, OptionInvalid) else 1
    if arguments.json:
        sys.stdout.write(json.dumps(report.as_json(), indent=2) + "\n")
    else:
        sys.stdout.write(f"wrote: `{report.path}`\n")
    progress("Restart `sketchbridge serve` to serve it.")
    return 0
