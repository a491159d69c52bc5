"""The operators that a ready network may consist of: functions of tensors and numbers, and nothing else.

None of them reads or writes files, draws random numbers or runs code of the file's; whatever is not listed is refused.
Names are those of PyTorch's `aten` namespace without overloads.
"""

from __future__ import annotations

ATEN = frozenset(
    """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution _convolution
    linear addmm matmul mm bmm baddbmm einsum scaled_dot_product_attention
    batch_norm _native_batch_norm_legit_no_training native_batch_norm instance_norm native_group_norm group_norm
    layer_norm native_layer_norm _native_batch_norm_legit
    relu leaky_relu elu selu celu gelu silu mish hardtanh hardswish hardsigmoid sigmoid tanh softplus softsign
    log_sigmoid prelu relu6 threshold clamp clamp_min clamp_max clip softmax _softmax log_softmax _log_softmax
    glu hardshrink softshrink tanhshrink
    max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d max_pool2d_with_indices
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d
    upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa _upsample_lanczos2d_aa
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    pixel_shuffle pixel_unshuffle channel_shuffle grid_sampler grid_sampler_2d affine_grid_generator im2col col2im
    constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d
    replication_pad1d replication_pad2d replication_pad3d
    add sub rsub mul div true_divide floor_divide remainder fmod pow square sqrt rsqrt exp expm1 log log1p log2 log10
    neg abs sign sgn reciprocal floor ceil round trunc frac sin cos tan asin acos atan atan2 sinh cosh erf
    maximum minimum max min amax amin mean sum prod var std var_mean std_mean norm linalg_vector_norm logsumexp cumsum
    argmax argmin all any
    eq ne lt le gt ge logical_and logical_or logical_not logical_xor where masked_fill isnan isinf
    cat concat stack split split_with_sizes chunk unbind select slice narrow index_select gather flip roll index
    view reshape _unsafe_view view_as reshape_as expand expand_as permute transpose t contiguous clone detach alias
    squeeze unsqueeze flatten unflatten repeat repeat_interleave tile movedim swapaxes numpy_T
    lift_fresh_copy lift_fresh to _to_copy type_as float double copy
    dropout feature_dropout alpha_dropout native_dropout feature_alpha_dropout
    zeros_like ones_like full_like empty_like new_zeros new_ones new_full addcmul addcdiv lerp tril triu
    size sym_size sym_numel sym_stride numel dim stride
    """.split()  # noqa: SIM905 - a list of quoted words reads worse
)  # `dropout` and the normalisations are looked at again: they must not be training

# In place: the same, ending in an underscore.
IN_PLACE = frozenset(f"{name}_" for name in ATEN)


def is_pure(name: str) -> bool:
    """Whether `name`, an operator of the aten namespace without its overload, may be part of a ready network."""
    return name in ATEN or name in IN_PLACE
