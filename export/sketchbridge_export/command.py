"""`sketchbridge export`: arguments in, one library call, the answer out. Imports nothing heavy until it runs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sketchbridge_export.errors import ExportError, OptionInvalid

if TYPE_CHECKING:
    from sketchbridge_export.reconstruction import Wishes

DEFAULT_REPOSITORY = Path("model_repository")
# The keys of tables whose modules take torch, written again to keep the help quick; a test holds them equal.
FAMILY_NAMES = (
    "junyanz_unet",
    "junyanz_resnet",
    "pix2pixhd",
    "aladdin_unet",
    "eriklindernoren_unet",
    "renderx_unet",
    "sequential",
    "smp_unet",
    "fastai_unet",
    "keras_model",
    "keras_tutorial_unet",
    "keras_brownlee_unet",
    "keras_pooling_unet",
)
ARTEFACT_KINDS = (
    "onnx",
    "openvino",
    "openvino-bf16",
    "openvino-int8",
    "tensorrt",
    "tensorrt-int8",
    "tensorrt-rtx",
    "tensorrt-rtx-int8",
)
SERVED_KINDS = ("onnx", "openvino", "openvino-bf16", "openvino-int8")
HARDWARE_COMPATIBILITIES = ("none", "ampere+", "same-cc")
VALUE_RANGE_NAMES = ("tanh", "unit", "imagenet", "byte")

_DESCRIPTION = """\
Turn the checkpoint of a Pix2Pix-family generator into a new version of a model in a Triton model repository.

The family, depth, widths and normalisation are read from the weights. Every artefact is compared with the checkpoint on
the same pictures, and all of them are published together only when each agrees. A running Triton never sees half of it;
restart `sketchbridge serve` to serve it.
"""
_EPILOG = """\
examples:
  sketchbridge export latest_net_G.pth --inspect
  sketchbridge export latest_net_G.pth --name shoes
  sketchbridge export faces.pt --name faces --repository models --norm running --weights fp16
  sketchbridge export faces.pt --name faces --artefacts openvino-int8 --serve openvino-int8 --calibration photos/
  sketchbridge export faces.pt --name faces --artefacts tensorrt
  sketchbridge export faces.pt --name faces --repository models --pictures sketches/ --json | jq .artefacts

exit status: 0 exported, 1 the export failed and nothing was published, 2 the call was wrong
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the arguments, description and examples of the command."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="the generator: a file of torch, safetensors, TorchScript, torch.export, Keras or ONNX, or a SavedModel",
    )
    parser.add_argument("--name", help="name of the model that callers ask for, such as `shoes`")
    parser.add_argument(
        "--repository",
        type=Path,
        default=DEFAULT_REPOSITORY,
        metavar="FOLDER",
        help="the model repository; made if it is missing (default: ./%(default)s)",
    )
    parser.add_argument(
        "--inspect", action="store_true", help="say what the checkpoint was recognised as, and why; write nothing"
    )
    parser.add_argument("--json", action="store_true", help="print the whole answer as JSON")
    _add_wishes(parser.add_argument_group("how the checkpoint is understood (default: as it says, else as its family)"))
    artefacts = parser.add_argument_group("what is made of it")
    artefacts.add_argument(
        "--artefacts",
        type=_names,
        default=(),
        metavar="KIND[,KIND...]",
        help=f"kinds to make beside onnx: {', '.join(ARTEFACT_KINDS[1:])}",
    )
    artefacts.add_argument(
        "--serve",
        choices=SERVED_KINDS,
        help="the artefact that config.pbtxt of a new model names, for the CPU (default: onnx)",
    )
    artefacts.add_argument(
        "--weights",
        choices=("fp32", "fp16"),
        default="fp32",
        help="precision the weights are stored in; fp16 halves the file and computes in FP32 all the same "
        "(default: %(default)s)",
    )
    artefacts.add_argument(
        "--calibration",
        type=Path,
        metavar="FOLDER",
        help="photos or drawings like those to come, which INT8 is fitted to (default: the drawings that the package "
        "ships, a few shoes)",
    )
    artefacts.add_argument(
        "--hardware-compatibility",
        choices=HARDWARE_COMPATIBILITIES,
        default="none",
        help="GPUs that a TensorRT plan runs on: the kind it is built on, all of compute capability 8.0 and later, or "
        "all of the same compute capability (default: %(default)s, the fastest)",
    )
    artefacts.add_argument(
        "--version-compatible", action="store_true", help="let later versions of TensorRT load the plan too"
    )
    comparison = parser.add_argument_group("how it is compared")
    comparison.add_argument(
        "--pictures",
        type=Path,
        metavar="FOLDER",
        help="folder of sketches to compare on (default: the drawings that the package ships)",
    )
    comparison.add_argument(
        "--min-ssim",
        type=float,
        metavar="SSIM",
        help="similarity that the worst picture of an INT8 artefact must reach (default: 0.98)",
    )
    comparison.add_argument(
        "--evidence",
        type=Path,
        metavar="FOLDER",
        help="where the worst picture of an artefact that fails is written (default: the current folder)",
    )


def _add_wishes(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--family", metavar="FAMILY", help=f"kind of checkpoint: {', '.join(FAMILY_NAMES)}")
    group.add_argument(
        "--norm",
        choices=("running", "instance"),
        help="statistics to normalise with: `running` are those of the training, `instance` each picture's own, as the "
        "pix2pix reference paints",
    )
    group.add_argument(
        "--dropout",
        type=_seed,
        metavar="off|SEED",
        help="whole number: drop by a fixed mask of this seed, the same noise for every picture (default: off)",
    )
    group.add_argument(
        "--activation",
        choices=("tanh", "sigmoid", "none"),
        help="what follows the last layer, for families whose checkpoints can't tell",
    )
    group.add_argument(
        "--size", type=int, metavar="PIXELS", help="side of the picture that a fully convolutional network takes"
    )
    group.add_argument(
        "--input-range",
        choices=VALUE_RANGE_NAMES,
        help="values of black and white that the network takes: tanh is -1 to 1, unit 0 to 1, byte 0 to 255, imagenet "
        "those of ImageNet's statistics",
    )
    group.add_argument(
        "--output-range", choices=VALUE_RANGE_NAMES, help="values of black and white that the network gives"
    )
    group.add_argument("--channel-order", choices=("rgb", "bgr"), help="order of its three channels")
    group.add_argument(
        "--line-polarity", choices=("dark-on-light", "light-on-dark"), help="the drawings that it was trained on"
    )


def run(arguments: argparse.Namespace) -> int:
    """Export or inspect; steps go to stderr, the answer to stdout. Returns the exit status."""
    try:
        return _inspect(arguments) if arguments.inspect else _export(arguments)
    except ExportError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 2 if isinstance(exc, OptionInvalid) else 1


def _inspect(arguments: argparse.Namespace) -> int:
    from sketchbridge_export.inspection import inspect_checkpoint  # noqa: PLC0415 - torch takes seconds to import

    found = inspect_checkpoint(arguments.checkpoint, _wishes(arguments))
    sys.stdout.write((json.dumps(found.as_json(), indent=2) if arguments.json else found.as_text()) + "\n")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    if arguments.name is None:
        raise OptionInvalid("--name is missing: say what callers ask for, such as `--name shoes`, or pass --inspect.")
    from sketchbridge_export.artefacts.tensorrt import timing_cache_folder  # noqa: PLC0415
    from sketchbridge_export.export import export_checkpoint  # noqa: PLC0415 - torch takes seconds to import
    from sketchbridge_export.production import PlanOptions  # noqa: PLC0415

    report = export_checkpoint(
        arguments.checkpoint,
        name=arguments.name,
        repository=arguments.repository,
        wishes=_wishes(arguments),
        artefacts=arguments.artefacts,
        weights=arguments.weights,
        serve=arguments.serve,
        calibration=arguments.calibration,
        min_ssim=arguments.min_ssim,
        plan_options=PlanOptions(
            hardware_compatibility=arguments.hardware_compatibility,
            version_compatible=arguments.version_compatible,
            timing_cache=timing_cache_folder(),
        ),
        pictures=arguments.pictures,
        evidence=arguments.evidence,
        progress=_say,
    )
    if arguments.json:
        sys.stdout.write(json.dumps(report.as_json(), indent=2) + "\n")
    else:
        sys.stdout.write(f"wrote: `{report.path}`\n")
    _say("Restart `sketchbridge serve` to serve it.")
    return 0


def _wishes(arguments: argparse.Namespace) -> Wishes:
    from sketchbridge_export.reconstruction import Wishes  # noqa: PLC0415 - torch takes seconds to import

    return Wishes(
        family=arguments.family,
        norm=arguments.norm,
        dropout_seed=arguments.dropout,
        activation=arguments.activation,
        size=arguments.size,
        input_range=arguments.input_range,
        output_range=arguments.output_range,
        channel_order=arguments.channel_order,
        line_polarity=arguments.line_polarity,
    )


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _seed(text: str) -> int | None:
    if text == "off":
        return None
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither `off` nor a whole number, such as 7")
    return int(text)
