"""The lines that a random PyTorch program may have: {0} and {1} are operands, {d} is a dimension, {s} a size.

A ! in front means that the line writes in place, a * that it has two results.
"""

from __future__ import annotations


def _texts(lines: str) -> tuple[str, ...]:
    return tuple(text.strip() for text in lines.replace("\n", " ").split(";"))


SMOOTH = _texts("""
    torch.exp({0} * 0.5); torch.tanh({0}); torch.sigmoid({0}); torch.sin({0}); torch.cos({0});
    torch.log1p({0}.abs()); torch.sqrt({0}.abs() + 1); torch.rsqrt({0}.abs() + 1); F.gelu({0}); F.silu({0});
    F.softplus({0}); torch.erf({0}); torch.expm1({0} * 0.1); F.elu({0}); torch.atan({0});
    torch.log2({0}.abs() + 0.5); torch.special.logit({0}.sigmoid()); F.mish({0}); torch.square({0});
    torch.nan_to_num({0}); torch.reciprocal({0}.abs() + 1); torch.sinh({0} * 0.1); torch.asinh({0});
    torch.logaddexp({0}, {0} * 0.5); F.hardswish({0}); F.logsigmoid({0}); torch.lerp({0}, {0} * 2, 0.25); {0} / 3;
    {0} / ({0}.abs() + 1); torch.pow({0}.abs() + 0.1, 1.5); {0} ** 2; torch.sinc({0})
""")

ROUND = _texts("""
    {0} + {1}; {0} - {1}; {0} * {1}; torch.maximum({0}, {1}); torch.minimum({0}, {1}); {0} + 1; {0} * 2; {0} - 0.5;
    1 - {0}; -{0}; torch.abs({0}); torch.relu({0}); torch.clamp({0}, -1, 1); torch.clamp({0}, min=0.5);
    torch.where({0} > 0, {0}, {1}); torch.add({0}, {1}, alpha=2); torch.rsub({0}, 3); F.leaky_relu({0}, 0.5);
    F.hardtanh({0}); torch.fmax({0}, {1}); torch.fmin({0}, {1}); torch.masked_fill({0}, {0} > 0, 1.5);
    F.threshold({0}, 0.5, -1.0); {0} + torch.ones_like({0})
""")

EXACT = _texts("""
    {0} > {1}; {0} == {1}; {0} <= 0; {0} != {0}; torch.floor({0}); torch.ceil({0}); torch.round({0});
    torch.trunc({0}); torch.sign({0}); torch.isnan({0}); torch.isfinite({0}); torch.signbit({0});
    torch.logical_and({0}, {1}); torch.logical_not({0}); torch.logical_xor({0}, {1}); torch.frac({0});
    torch.remainder({0}, 3); torch.fmod({0}, 3); torch.floor_divide({0}, 3); torch.copysign({0}, {1});
    torch.heaviside({0}, {1}); torch.isclose({0}, {1}); torch.div({0}, 3, rounding_mode='trunc'); {0} // 2;
    torch.div({0}, 4, rounding_mode='floor'); torch.isin({0}, {1}); torch.nextafter({0}, {1}); torch.sgn({0})
""")

INTEGER = _texts("""
    {0} & {1}; {0} | {1}; {0} ^ {1}; ~{0}; {0} << 1; {0} >> 1; {0} + {1}; {0} * {1}; {0} - {1}; {0} % 3; {0} // 3;
    torch.bitwise_not({0}); {0} / 2; torch.gcd({0}, {1}); {0} * 2.5; {0} + 0.5; {0} - 3; torch.clamp({0}, 0, 5);
    torch.maximum({0}, {1}); {0} ** 2; torch.abs({0}); -{0}; {0} > {1}; {0} == {1}; torch.bitwise_left_shift({0}, 2);
    torch.where({0} > 1, {0}, 0); {0}.float() * 0.5; torch.sqrt({0}.abs())
""")

COMPLEX = _texts("""
    {0} * {1}; {0} + {1}; {0}.conj(); {0}.real; {0}.imag; torch.view_as_real({0}); {0}.abs(); {0} * 2j;
    torch.angle({0}); -{0}; torch.exp({0}); {0} / 2; {0}.conj() * {1}; {0}.sum(); torch.conj({0}).imag
""")

REDUCE_SMOOTH = _texts("""
    {0}.sum({d}); {0}.mean({d}); {0}.sum({d}, keepdim=True); {0}.mean(); {0}.sum(); {0}.var({d});
    {0}.std({d}, correction=0); torch.softmax({0}, {d}); torch.log_softmax({0}, {d}); torch.logsumexp({0}, {d});
    torch.linalg.vector_norm({0}, dim={d}); {0}.prod({d}); torch.cumsum({0}, {d}); torch.logcumsumexp({0}, {d});
    F.layer_norm({0}, {0}.shape[-1:]); torch.cumprod({0}, {d}); torch.nansum({0}, {d}); torch.var_mean({0}, {d})[0];
    F.normalize({0}, dim={d}); torch.trapezoid({0}, dim={d}); {0}.norm(p=1, dim={d}); torch.softmax({0} * 1.0, {d});
    F.rms_norm({0}, {0}.shape[-1:]); torch.diff({0}, dim={d}); {0}.nanmean({d})
""")

REDUCE_EXACT = _texts("""
    {0}.amax({d}); {0}.amin({d}); {0}.argmax({d}); {0}.argmin({d}); {0}.any({d}); {0}.all(); {0}.any();
    *{0}.max({d}); *{0}.min({d}); *torch.sort({0}, {d}, stable=True); torch.argsort({0}, {d}, stable=True);
    *torch.sort({0}, {d}, descending=True, stable=True); torch.topk({0}, 1, {d})[0]; *torch.cummax({0}, {d});
    torch.count_nonzero({0}, {d}); {0}.max(); {0}.median({d})[0]; *torch.aminmax({0}, dim={d}); {0}.argmax();
    *torch.cummin({0}, {d}); torch.kthvalue({0}, 1, {d})[0]; {0}.nanmedian(); torch.unique({0});
    torch.searchsorted({0}.flatten().sort()[0], {0}); torch.bucketize({0}, torch.tensor([-1.0, 0.0, 1.0]))
""")

MOVES = _texts("""
    {0}.t(); {0}.transpose(0, -1); {0}.flip({d}); {0}.roll(1, {d}); {0}.reshape(-1); {0}.unsqueeze({d});
    {0}.squeeze(); {0}[..., 1:]; {0}[::2]; {0}[0]; {0}[-1]; {0}.expand(2, *{0}.shape); {0}.clone();
    torch.cat([{0}, {1}], {d}); torch.stack([{0}, {0}], {d}); {0}.repeat_interleave(2, {d}); {0}.contiguous();
    {0}.narrow({d}, 0, 1); torch.chunk({0}, 2, {d})[0]; torch.split({0}, 2, {d})[-1]; {0}.movedim(0, -1);
    {0}.unfold({d}, 2, 1); {0}.diagonal(); torch.tril({0}); torch.triu({0}, 1); F.pad({0}, (1, 2)); {0}.tile(2);
    {0}.flatten(); {0}.as_strided((2,), (1,), 1); {0}.select({d}, 0); {0}.view(-1); {0}.detach();
    {0}.index_select({d}, torch.tensor([0, 0])); F.pad({0}, (-1, 1), value=2); {0}.unbind({d})[0]; {0}.T.clone();
    torch.take_along_dim({0}, {0}.argsort({d}, stable=True) * 0, {d}); {0}.permute(*reversed(range({0}.dim())));
    {0}[{0} > 0]; {0}[torch.tensor([0, -1])]; {0}[None]; {0}.rot90(); torch.hstack([{0}, {0}]);
    {0}.new_zeros({0}.shape); torch.zeros_like({0}); torch.atleast_2d({0}); torch.nonzero({0} > 0);
    torch.constant_pad_nd({0}, (0, 1), 3); torch.diag_embed({0}); {0}.view({0}.shape);
    {0}.swapaxes(0, -1).contiguous(); torch.slice_scatter({0}, {0}[:1] * 0, 0, 0, 1);
    torch.select_scatter({0}, {0}[0] * 2, 0, -1); {0}.squeeze({d})
""")

IN_PLACE = _texts("""
    !{0}.add_(1); !{0}.mul_(2); !{0}.copy_({1}); !{0}.zero_(); !{0}[0] = 1; !{0}[1:] = {0}[:-1].clone();
    !{0}[..., 0] += 1; !{0}.fill_(3); !{0}.add_({1}); !{0}.clamp_(-1, 1); !{0}.masked_fill_({0} > 0, 2);
    !{0}[::2].mul_(3); !{0}.neg_(); !{0}.sub_({1}); !{0}[-1].add_({0}[0]); !{0}.index_fill_(0, torch.tensor([0]), 4);
    !{0}.t().add_(1); !{0}.relu_(); !{0}.view(-1)[0] = 5; !{0}[{0} > 0] = 0; !{0}.copy_({0} + 1);
    !{0}.transpose(0, -1).copy_({1}); !{0}.diagonal().fill_(1); !{0}.squeeze_(); !{0}.unsqueeze_(0);
    !{0}.index_put_((torch.tensor([0, 0]),), {0}[0] * 0 + 1, accumulate=True);
    !{0}.as_strided((1,), (1,), 0).fill_(7); !{0}.index_copy_(0, torch.tensor([0]), {0}[-1:].clone());
    !torch.add({0}, 1, out={0}); !{0}.select(-1, 0).zero_()
""")

INDEXED = _texts("""
    {0}[{1}.long() % {0}.shape[0]]; {0}.index_add(0, {1}.long().flatten()[:1] % {0}.shape[0], {0}[:1]);
    torch.gather({0}, {d}, {0}.argsort({d}, stable=True)); F.one_hot({1}.long() % 5, 5);
    torch.bincount({1}.flatten() % 7); torch.zeros_like({0}).scatter_add({d}, {0}.long() * 0, {0});
    F.embedding({1}.long() % {0}.shape[0], {0});
    torch.zeros_like({0}).scatter_reduce({d}, {0}.long() * 0, {0}, 'amax');
    torch.take({0}, {1}.long() % {0}.numel()); {0}.index_put(({1}.long() % {0}.shape[0],), {0}[0]);
    torch.scatter({0}, {d}, {0}.argsort({d}, stable=True), {0})
""")

POOLS = _texts("""
    F.avg_pool{r}d({0}, {k}, {s}, padding={p}, ceil_mode={c}, count_include_pad={i});
    F.max_pool{r}d({0}, {k}, {s}, padding={p}, ceil_mode={c}); F.adaptive_avg_pool{r}d({0}, 3);
    F.adaptive_max_pool{r}d({0}, 2); F.interpolate({0}, scale_factor=1.7, mode='nearest');
    F.interpolate({0}, size={k} * 3, mode='nearest-exact'); F.lp_pool{r}d({0}, 2, {k}, {s});
    F.pad({0}, (1, 1) * {r}, mode='reflect'); F.pad({0}, (1, 2) * {r}, mode='replicate'); F.group_norm({0}, 3);
    F.pad({0}, (2, 1) * {r}, mode='circular'); F.batch_norm({0}, None, None, training=True); F.instance_norm({0})
""")

IMAGES = _texts("""
    F.interpolate({0}, scale_factor=2, mode='bilinear'); F.pixel_unshuffle({0}[:, :, :4, :4], 2); F.unfold({0}, 2);
    F.interpolate({0}, size=9, mode='bicubic', align_corners=True)
""")
