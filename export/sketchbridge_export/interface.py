"""The face every generator shows: uint8 RGB in, uint8 RGB out, whatever its family takes and gives.

All of it is part of the exported graph, so no caller can feed a generator the wrong range, order or polarity.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from sketchbridge_export.errors import FamilyUnknown
from sketchbridge_export.families import Convention, Generator, ValueRange
from sketchbridge_preprocess import INTERFACE_SIDE_PX

INPUT_NAME = "sketch"
OUTPUT_NAME = "photo"

# ITU-R BT.601 luma in 1/65536, as Pillow's convert("L") has it. Sums stay below 2**24, so float32 holds them exactly
# and gray comes out bit for bit the same in every runtime.
_LUMA = (19595.0, 38470.0, 7471.0)
_CHANNELS = (1, 3)


class GeneratorInterface(nn.Module):
    """`sketch` (N, 256, 256, 3) uint8 RGB, dark lines on white -> `photo` (N, 256, 256, 3) uint8 RGB.

    A one-channel network is fed gray (BT.601) and its result is repeated. A network of another size than 256 gets the
    picture resized bilinearly, without antialiasing (align_corners False), and its result is brought back the same way.
    Colours are rounded to the nearest level, ties to even, where the pix2pix reference cuts fractions off.
    Raises FamilyUnknown if the network has neither one nor three channels.
    """

    def __init__(self, generator: Generator, convention: Convention) -> None:
        super().__init__()
        for side, channels in (("input", generator.input_channels), ("output", generator.output_channels)):
            if channels not in _CHANNELS:
                raise FamilyUnknown(
                    f"The network's {side} has {channels} channels; sketch-to-photo generators have 1 or 3."
                )
        self.network = generator.module
        self.native_size = generator.native_size
        self.gray_input = generator.input_channels == 1
        self.gray_output = generator.output_channels == 1
        self.bgr = convention.channel_order == "bgr"
        self.inverted = convention.line_polarity == "light-on-dark"
        self.input_low, self.input_span = _low_and_span(convention.input_range, generator.input_channels)
        self.output_low, self.output_span = _low_and_span(convention.output_range, generator.output_channels)

    def forward(self, sketch: torch.Tensor) -> torch.Tensor:
        """See the class."""
        x = sketch.permute(0, 3, 1, 2).float()  # (N, 3, H, W) in [0, 255]
        if self.gray_input:
            weighted = x[:, 0:1] * _LUMA[0] + x[:, 1:2] * _LUMA[1] + x[:, 2:3] * _LUMA[2]
            x = torch.floor((weighted + 32768.0) / 65536.0)  # (N, 1, H, W)
        elif self.bgr:
            x = _reverse_channels(x)
        if self.inverted:
            x = 255.0 - x
        x = _resize(x * (self.input_span / 255.0) + self.input_low, self.native_size)
        y = _resize(self.network(x), INTERFACE_SIDE_PX)
        y = (y - self.output_low) * (255.0 / self.output_span)
        y = torch.clamp(torch.round(y), 0.0, 255.0)
        if self.gray_output:
            y = torch.cat([y, y, y], dim=1)
        elif self.bgr:
            y = _reverse_channels(y)
        return y.to(torch.uint8).permute(0, 2, 3, 1)


def _low_and_span(values: ValueRange, channels: int) -> tuple[float | torch.Tensor, float | torch.Tensor]:
    """Black's value, and white's above it: numbers, or (1, 3, 1, 1) tensors where channels differ."""
    if isinstance(values.low, float) and isinstance(values.high, float):
        return values.low, values.high - values.low
    if channels == 1:
        raise FamilyUnknown("The value range differs from channel to channel, but the network has only one channel.")
    low, high = (torch.tensor(value).expand(3).reshape(1, 3, 1, 1) for value in (values.low, values.high))
    return low.clone(), high - low


def _reverse_channels(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x[:, 2:3], x[:, 1:2], x[:, 0:1]], dim=1)


def _resize(x: torch.Tensor, size: int) -> torch.Tensor:
    if tuple(x.shape[2:]) == (size, size):
        return x
    return functional.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=False)
