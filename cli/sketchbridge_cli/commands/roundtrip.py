"""`sketchbridge roundtrip`: photos in, their drawings and the photos painted from those out."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sketchbridge_cli.options import add_fitting, add_method, method_parameters
from sketchbridge_cli.pictures import add_pictures, run_pictures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sketchbridge_client import Client, Picture
    from sketchbridge_client.formats import OutputFormat

_DESCRIPTION = """Draw the lines of each photo, and paint a photo from them again.

Of `photo.jpg` there come `photo_<model>_sketch.png` and `photo_<model>_photo.png`, beside it or in --output.
An input that fails stops no other."""

_EXAMPLES = """examples:
  sketchbridge roundtrip photo.jpg --model shoes
  sketchbridge roundtrip photos/*.jpg --model shoes --method xdog --set sigma=0.8 -o there_and_back/

exit status: 0 done, 1 a picture failed, 2 the call was wrong, 130 interrupted"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command to argparse."""
    parser.description, parser.epilog = _DESCRIPTION, _EXAMPLES
    add_pictures(
        parser,
        inputs="a photo (PNG, JPEG, WebP or BMP); `-` reads one from stdin",
        output="folder for both pictures (made if its parent is there)",
    )
    parser.add_argument("--model", default="shoes", help="the painter, see `sketchbridge models` (default: shoes)")
    add_method(parser)
    add_fitting(parser)


def run(arguments: argparse.Namespace) -> int:
    """Take every input there and back and return the exit status."""
    parameters = method_parameters(arguments)
    labels = {"sketch": f"{arguments.model}_sketch", "photo": f"{arguments.model}_photo"}

    def work(client: Client, source: bytes | str, output_format: OutputFormat) -> Mapping[str, Picture]:
        both = client.roundtrip(
            source,
            model=arguments.model,
            method=arguments.method,
            fit=arguments.fit,
            normalise=arguments.normalise,
            output_format=output_format,
            quality=arguments.quality,
            **parameters,
        )
        return {"sketch": both.sketch, "photo": both.photo}

    return run_pictures(arguments, "drew and repainted", labels, work)
