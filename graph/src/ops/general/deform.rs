//! Convolution whose kernel elements are moved by learned offsets: `DeformConv`, in two dimensions.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Facts, Kernel, Unknown, Values, check_bytes, extents, volume};
use super::own::operator;
use super::real::{Real, Reals, add_scaled, check_real, rounded, with_real};
use super::window::{Slide, Window};

const WEIGHT: usize = 1;
const OFFSET: usize = 2;
const BIAS: usize = 3;
const MASK: usize = 4;

#[derive(Debug)]
struct DeformConv {
    window: Window,
    groups: usize,
    offset_groups: usize,
}

pub(super) fn deform_conv(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let kernel = DeformConv {
        window: Window::parse(node)?,
        groups: node.get_attr_opt("group")?.unwrap_or(1),
        offset_groups: node.get_attr_opt("offset_group")?.unwrap_or(1),
    };
    ensure!(
        kernel.groups > 0 && kernel.offset_groups > 0,
        "a number of groups is zero"
    );
    operator(context, node, "DeformConv", kernel)
}

struct Sizes {
    batch: usize,
    channels: usize,
    filters: usize,
    input: [usize; 2],
    output: [usize; 2],
    slides: TVec<Slide>,
}

impl DeformConv {
    fn sizes(
        &self,
        shape: impl Fn(usize) -> TractResult<Option<TVec<usize>>>,
    ) -> TractResult<Sizes> {
        let need =
            |place: usize| shape(place)?.with_context(|| format!("input {place} is missing"));
        let (input, weight, offset) = (need(0)?, need(WEIGHT)?, need(OFFSET)?);
        let (&[batch, channels, height, width], &[filters, inner, rows, columns]) =
            (&*input, &*weight)
        else {
            bail!("only inputs and weights of four axes are supported");
        };
        let kernel = [rows, columns];
        if let Some(declared) = &self.window.kernel {
            ensure!(
                **declared == kernel,
                "kernel_shape differs from the weight's"
            );
        }
        ensure!(
            inner.checked_mul(self.groups) == Some(channels)
                && filters.is_multiple_of(self.groups)
                && channels.is_multiple_of(self.offset_groups),
            "{channels} channels and {filters} filters do not fit the groups"
        );
        let slides = self.window.slides(&kernel, &[height, width])?;
        let output = self.window.outputs(&slides, &[height, width])?;
        let output = [output[0], output[1]];
        let elements = volume(&[self.offset_groups, rows, columns])?;
        let want = |each: usize| [batch, elements * each, output[0], output[1]];
        ensure!(
            *offset == want(2),
            "an offset of shape {offset:?}, not {:?}",
            want(2)
        );
        if let Some(mask) = shape(MASK)? {
            ensure!(
                *mask == want(1),
                "a mask of shape {mask:?}, not {:?}",
                want(1)
            );
        }
        if let Some(bias) = shape(BIAS)? {
            ensure!(
                *bias == [filters],
                "a bias of shape {bias:?} for {filters} filters"
            );
        }
        Ok(Sizes {
            batch,
            channels,
            filters,
            input: [height, width],
            output,
            slides,
        })
    }
}

impl Sizes {
    fn shape(&self) -> [usize; 4] {
        [self.batch, self.filters, self.output[0], self.output[1]]
    }
}

impl Kernel for DeformConv {
    fn facts(&self, inputs: &Facts<'_>, _unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let input = inputs.need(0)?;
        check_real(input.datum_type)?;
        let sizes = self.sizes(|place| inputs.get(place).map(extents).transpose())?;
        Ok(tvec![input.datum_type.fact(sizes.shape())])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        with_real!(inputs.need(0)?.datum_type(), convolve(self, inputs))
    }
}

fn convolve<R: Real>(kernel: &DeformConv, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
    let sizes = kernel.sizes(|place| Ok(inputs.get(place).map(|input| input.shape().into())))?;
    let reals = |place: usize| inputs.get(place).map(Reals::<R>::new).transpose();
    let (input, weight, offset) = (reals(0)?, reals(WEIGHT)?, reals(OFFSET)?);
    let (bias, mask) = (reals(BIAS)?, reals(MASK)?);
    let all = |reals: &Option<Reals<'_, R>>| -> TractResult<Vec<R>> {
        match reals {
            Some(reals) => Ok(reals.as_slice()?.to_vec()),
            None => Ok(vec![]),
        }
    };
    let (input, weight, offset) = (all(&input)?, all(&weight)?, all(&offset)?);
    let (bias, mask) = (all(&bias)?, all(&mask)?);
    let [rows, columns] = [sizes.slides[0].kernel, sizes.slides[1].kernel];
    let elements = rows * columns;
    let [height, width] = sizes.output;
    let plane = height * width;
    let filters_each = sizes.filters / kernel.groups;
    let channels_each = sizes.channels / kernel.groups;
    let shared = sizes.channels / kernel.offset_groups;
    check_bytes(&[sizes.channels, elements, width], size_of::<R>())?;
    let mut samples = vec![R::zero(); sizes.channels * elements * width];
    let mut output = vec![R::zero(); volume(&sizes.shape())?];
    for batch in 0..sizes.batch {
        for y in 0..height {
            for group in 0..kernel.offset_groups {
                for element in 0..elements {
                    let tap = group * elements + element;
                    let at = (batch * kernel.offset_groups * elements + tap) * plane + y * width;
                    for x in 0..width {
                        let moved = |axis: usize, output: usize, step: usize| {
                            let slide = &sizes.slides[axis];
                            let offset_at =
                                (batch * kernel.offset_groups * elements + tap) * 2 + axis;
                            let offset = offset[offset_at * plane + y * width + x];
                            let place = output * slide.stride + step * slide.dilation;
                            let real = |number| R::from_usize(number).unwrap_or_else(R::nan);
                            real(place) - real(slide.before) + offset
                        };
                        let point = [
                            moved(0, y, element / columns),
                            moved(1, x, element % columns),
                        ];
                        let scale = if mask.is_empty() {
                            R::one()
                        } else {
                            mask[at + x]
                        };
                        let sampled = bilinear(point, sizes.input);
                        for channel in group * shared..(group + 1) * shared {
                            let area = sizes.input[0] * sizes.input[1];
                            let data = &input[(batch * sizes.channels + channel) * area..][..area];
                            let sample: R = sampled
                                .iter()
                                .map(|(place, weight)| {
                                    *weight * place.map_or_else(R::zero, |at| data[at])
                                })
                                .sum();
                            samples[(channel * elements + element) * width + x] = scale * sample;
                        }
                    }
                }
            }
            for filter in 0..sizes.filters {
                let line = ((batch * sizes.filters + filter) * height + y) * width;
                let line = &mut output[line..line + width];
                line.fill(bias.get(filter).copied().unwrap_or_else(R::zero));
                let first = filter / filters_each * channels_each * elements;
                let taps = channels_each * elements;
                let filter = &weight[filter * taps..(filter + 1) * taps];
                for (tap, weight) in (first..).zip(filter) {
                    add_scaled(line, *weight, &samples[tap * width..(tap + 1) * width]);
                }
            }
        }
    }
    let datum_type = inputs.need(0)?.datum_type();
    Ok(tvec![rounded(datum_type, &sizes.shape(), output)?])
}

/// The four pixels around a point and their weights; one outside the image counts as zero.
fn bilinear<R: Real>([y, x]: [R; 2], [height, width]: [usize; 2]) -> [(Option<usize>, R); 4] {
    let (top, left) = (y.floor(), x.floor());
    let (down, across) = (y - top, x - left);
    let index = |place: R, extent: usize| place.to_usize().filter(|place| *place < extent);
    let pixel = |row: R, column: R| {
        let inside = row >= R::zero() && column >= R::zero();
        match (index(row, height), index(column, width)) {
            (Some(row), Some(column)) if inside => Some(row * width + column),
            _ => None,
        }
    };
    let (bottom, right) = (top + R::one(), left + R::one());
    let (up, back) = (R::one() - down, R::one() - across);
    [
        (pixel(top, left), up * back),
        (pixel(top, right), up * across),
        (pixel(bottom, left), down * back),
        (pixel(bottom, right), down * across),
    ]
}
