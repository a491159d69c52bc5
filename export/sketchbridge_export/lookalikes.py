"""What a checkpoint is when no family knows it: a discriminator, a classifier, a generator of another kind.

Names and shapes of well-known networks only; where none fits, nothing is said rather than guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from sketchbridge_export.families.family import Shapes, Weights

_TAKE_GENERATOR = "pass the generator's file, such as `latest_net_G.pth`"
_SKETCH_TO_PHOTO = "what is needed is a generator that turns a sketch into a photo"


def looks_like(weights: Weights) -> str | None:
    """A sentence on what weights that no family knows seem to be, and what to do; None if nothing comes to mind."""
    for look, sentence in _LOOKS:
        found = look(weights.shapes)
        if found is not None:
            return f"It looks like {sentence.format(found)}."
    return None


def _any(shapes: Shapes, pattern: str) -> str | None:
    """The first name that the pattern is found in."""
    return next((name for name in shapes if re.search(pattern, name)), None)


def _two_ways(shapes: Shapes) -> str | None:
    a, b = (
        _any(shapes, r"^(net)?(G|gen|generator)_?(A|AB|A2B)\."),
        _any(shapes, r"^(net)?(G|gen|generator)_?(B|BA|B2A)\."),
    )
    return a if a is not None and b is not None else None


def _lora(shapes: Shapes) -> str | None:
    return _any(shapes, r"(^|\.)lora_(A|B|up|down)\b|lora_unet_|(^|\.)hada_w1|(^|\.)lokr_w1")


def _diffusion(shapes: Shapes) -> str | None:
    return _any(
        shapes,
        r"^model\.diffusion_model\.|(^|\.)time_embedding\.linear_1\.|(^|\.)time_embed\.0\.|transformer_blocks\.\d+\.attn1\.",
    ) or _any(shapes, r"^(double_blocks|joint_blocks)\.\d+\.|(^|\.)(time_mlp|time_emb|time_proj)\.\d")


def _controlnet(shapes: Shapes) -> str | None:
    return _any(shapes, r"controlnet_cond_embedding\.|^control_model\.|(^|\.)controlnet_down_blocks\.")


def _autoencoder(shapes: Shapes) -> str | None:
    return _any(shapes, r"(^|\.)(quant_conv|post_quant_conv)\.|^(fc_)?(mu|logvar|log_var)\.|(^|\.)fc_(mu|logvar|var)\.")


def _style_gan(shapes: Shapes) -> str | None:
    mapping = _any(shapes, r"(^|\.)mapping\.fc\d|(^|\.)mapping\.(net|model|fcs)\.|^style\.\d+\.weight$")
    return mapping or _any(shapes, r"(^|\.)synthesis\.b\d+\.|^convs\.\d+\.conv\.modulation\.|^to_rgbs?\.?\d*\.")


def _latent_gan(shapes: Shapes) -> str | None:
    """A transposed convolution that makes 4 x 4 pixels out of a vector, first of all."""
    for name, shape in _matrices(shapes):
        square = len(shape) == 4 and shape[2] == shape[3] == 4
        if (
            re.match(r"(?i)^(main|model|net|gen|layers?|network|decoder|ct\w*|tconv\w*|deconv\w*)\w*\.?", name)
            and square
        ):
            # A generator's first convolution takes 1 or 3 channels; a vector has 32 values or more, and narrows.
            return f"`{name}` takes {shape[0]} values" if shape[0] >= 32 and shape[1] > 4 and _narrows(shapes) else None
        return None
    return None


def _linear_first(shapes: Shapes) -> str | None:
    for name, shape in _matrices(shapes):
        later = any(len(other) == 4 for other in shapes.values())
        return f"`{name}` takes {shape[1]} values" if len(shape) == 2 and shape[1] >= 10 and later else None
    return None


def _narrows(shapes: Shapes) -> bool:
    """Whether the convolutions are transposed ones, each taking what the one before gives, down to a picture."""
    found = [shape for _, shape in _matrices(shapes) if len(shape) == 4]
    chained = all(before[1] == after[0] for before, after in pairwise(found))
    return len(found) > 2 and chained and found[-1][1] in (1, 3)


def _matrices(shapes: Shapes) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, shape) for name, shape in shapes.items() if len(shape) in (2, 4) and name.endswith("weight")]


def _patch_discriminator(shapes: Shapes) -> str | None:
    """Convolutions of 4 x 4 one after the other, the last of which gives a single channel."""
    found = [(name, shape) for name, shape in _matrices(shapes)]
    if not 3 <= len(found) <= 12 or any(len(shape) != 4 for _, shape in found):
        return None
    ordered = all(before[1][0] == after[1][1] for before, after in pairwise(found))
    return f"`{found[-1][0]}` gives one channel" if ordered and found[-1][1][0] == 1 and found[0][1][1] > 1 else None


def _multiscale_discriminator(shapes: Shapes) -> str | None:
    return _any(shapes, r"^scale\d_layer\d\.|^layer\d\.\d\.weight$") or _any(shapes, r"^(discriminator|netD|dis)_\d\.")


def _named_discriminator(shapes: Shapes) -> str | None:
    return _any(shapes, r"(?i)^(discriminator|netD|dis|disc|critic|D)\.") if not _any(shapes, r"(?i)gen|netG") else None


def _plain_u_net(shapes: Shapes) -> str | None:
    """The one of milesial and its copies: their blocks fit several ways of padding, pooling and ending."""
    return _any(shapes, r"^(module\.)?inc\.(double_conv|conv)\.") and _any(shapes, r"^(module\.)?outc\.")


def _super_resolution(shapes: Shapes) -> str | None:
    return _any(shapes, r"(?i)\.rdb1\.conv1\.|RRDB_trunk|\.RDB1\.|^conv_up1\.|^upconv1\.|\.rcab\.|residual_group")


def _detector(shapes: Shapes) -> str | None:
    return _any(
        shapes, r"(^|\.)(cv2|cv3)\.\d+\.\d\.|\.anchors$|\.anchor_grid$|^(rpn|roi_heads)\.|bbox_embed|\.dfl\.conv\."
    )


def _language_model(shapes: Shapes) -> str | None:
    return _any(
        shapes,
        r"(^|\.)(embed_tokens|word_embeddings|wte|tok_embeddings|lm_head)\.|\.self_attn\.q_proj\.|token_type_embeddings",
    )


def _vision_transformer(shapes: Shapes) -> str | None:
    return _any(shapes, r"(^|\.)cls_token$|(^|\.)patch_embed\.proj\.|(^|\.)class_embedding$")


def _classifier(shapes: Shapes) -> str | None:
    """A matrix last of all, which gives one number a class, after convolutions."""
    found = _matrices(shapes)
    if len(found) < 3 or len(found[-1][1]) != 2 or not any(len(shape) == 4 for _, shape in found):
        return None
    name, shape = found[-1]
    kind = next((kind for pattern, kind in _TRUNKS if _any(shapes, pattern)), "a classifier")
    return f"{kind} (`{name}` gives {shape[0]} numbers)"


_TRUNKS = (
    (r"^(module\.)?layer1\.0\.conv1\.", "a ResNet classifier"),
    (r"^features\.\d+\.\d+\.block\.|_depthwise_conv|^blocks\.\d+\.\d+\.conv_pw", "an EfficientNet classifier"),
    (r"^features\.denseblock1\.", "a DenseNet classifier"),
    (r"^features\.\d+\.conv\.", "a MobileNet classifier"),
    (r"^features\.0\.weight", "a VGG or AlexNet classifier"),
)


def _bare_trunk(shapes: Shapes) -> str | None:
    name = _any(shapes, r"^(module\.)?layer4\.\d\.conv\d\.")
    return name if name is not None and _any(shapes, r"^(module\.)?layer1\.0\.conv1\.") and len(shapes) > 50 else None


# In this order: the surest signs first.
_LOOKS: tuple[tuple[Callable[[Shapes], str | None], str], ...] = (
    (_two_ways, "the training state of a CycleGAN, both directions in one (`{}`): save the generator that turns "
                "sketches into photos alone"),
    (_lora, "a LoRA (`{}`), which changes another network and is none itself: " + _SKETCH_TO_PHOTO),
    (_controlnet, "a ControlNet (`{}`), which steers a diffusion model: " + _SKETCH_TO_PHOTO),
    (_autoencoder, "a variational autoencoder (`{}`): " + _SKETCH_TO_PHOTO),
    (_diffusion, "the U-Net of a diffusion model (`{}`), which paints in many steps: " + _SKETCH_TO_PHOTO + " at once"),
    (_style_gan, "a StyleGAN generator (`{}`), which paints from random numbers: " + _SKETCH_TO_PHOTO),
    (_super_resolution, "a super-resolution network (`{}`), which enlarges photos: " + _SKETCH_TO_PHOTO),
    (_detector, "an object detector (`{}`): " + _SKETCH_TO_PHOTO),
    (_language_model, "a language model (`{}`): " + _SKETCH_TO_PHOTO),
    (_multiscale_discriminator, "a multi-scale discriminator (`{}`): " + _TAKE_GENERATOR),
    (_named_discriminator, "a discriminator (`{}`): " + _TAKE_GENERATOR),
    (_patch_discriminator, "a PatchGAN discriminator ({}): " + _TAKE_GENERATOR),
    (_latent_gan, "a GAN that paints from random numbers ({}): " + _SKETCH_TO_PHOTO),
    (_linear_first, "a GAN that paints from random numbers ({}): " + _SKETCH_TO_PHOTO),
    (_vision_transformer, "a vision transformer (`{}`): " + _SKETCH_TO_PHOTO),
    (_classifier, "{}: " + _SKETCH_TO_PHOTO),
    (_plain_u_net, "a U-Net that labels pixels (`{}`), whose activation and range no file tells: if it paints photos, "
                   "export it to ONNX or TorchScript with its own code, and give that"),
    (_bare_trunk, "a ResNet without its classifier (`{}`): " + _SKETCH_TO_PHOTO),
)  # fmt: skip
