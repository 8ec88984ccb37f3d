//! Pooling that tract lacks: `LpPool`, `MaxUnpool`.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::copies::for_each_index;
use super::kernel::{Facts, Kernel, Unknown, Values, check_bytes, extents, slice, tensor, volume};
use super::own::operator;
use super::real::{Real, Reals, check_real, rounded, with_real};
use super::window::{Slide, Window};

#[derive(Debug)]
struct LpPool {
    window: Window,
    p: i32,
}

pub(super) fn lp_pool(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let kernel = LpPool {
        window: Window::parse(node)?,
        p: node.get_attr_opt("p")?.unwrap_or(2),
    };
    ensure!(kernel.p > 0, "p is {}", kernel.p);
    ensure!(kernel.window.kernel.is_some(), "kernel_shape is missing");
    operator(context, node, "LpPool", kernel)
}

impl LpPool {
    fn slides(&self, shape: &[usize]) -> TractResult<(TVec<Slide>, TVec<usize>)> {
        let Some((front, spatial)) = shape.split_at_checked(2) else {
            bail!("the input has fewer than three axes");
        };
        let kernel = self.window.kernel.as_deref().unwrap_or_default();
        let slides = self.window.slides(kernel, spatial)?;
        let mut output: TVec<usize> = front.into();
        output.extend(self.window.outputs(&slides, spatial)?);
        Ok((slides, output))
    }
}

impl Kernel for LpPool {
    fn facts(&self, inputs: &Facts<'_>, _unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let input = inputs.need(0)?;
        check_real(input.datum_type)?;
        let (_, output) = self.slides(&extents(input)?)?;
        Ok(tvec![input.datum_type.fact(&*output)])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let input = inputs.need(0)?;
        with_real!(input.datum_type(), lp_norms(self, input))
    }
}

fn lp_norms<R: Real>(kernel: &LpPool, input: &Tensor) -> TractResult<TVec<Tensor>> {
    let (slides, output_shape) = kernel.slides(input.shape())?;
    let data = Reals::<R>::new(input)?;
    let data = data.as_slice()?;
    let (front, spatial) = input.shape().split_at(2);
    let plane: usize = spatial.iter().product();
    let elements: TVec<usize> = slides.iter().map(|slide| slide.kernel).collect();
    check_bytes(&output_shape, size_of::<R>())?;
    let mut output = Vec::with_capacity(volume(&output_shape)?);
    let mut places = vec![];
    let planes = front[0] * front[1];
    let outputs: usize = output_shape[2..].iter().product();
    output.resize(planes * outputs, R::zero());
    let mut at = 0;
    for_each_index(&output_shape[2..], |index| {
        // The same places hold for each plane, so they are found once.
        places.clear();
        for_each_index(&elements, |element| {
            let place = slides.iter().zip(index).zip(element).zip(spatial).try_fold(
                0,
                |place, (((slide, output), element), extent)| {
                    Some(place * extent + slide.place(*output, *element, *extent)?)
                },
            );
            places.extend(place);
        });
        for plane_index in 0..planes {
            let data = &data[plane_index * plane..(plane_index + 1) * plane];
            let powers: R = places
                .iter()
                .map(|place| data[*place].abs().powi(kernel.p))
                .sum();
            output[plane_index * outputs + at] = match kernel.p {
                1 => powers,
                2 => powers.sqrt(),
                p => powers.powf(R::one() / R::of(f64::from(p))),
            };
        }
        at += 1;
    });
    Ok(tvec![rounded(input.datum_type(), &output_shape, output)?])
}

#[derive(Debug)]
struct MaxUnpool(Window);

pub(super) fn max_unpool(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let window = Window::parse(node)?;
    ensure!(window.kernel.is_some(), "kernel_shape is missing");
    operator(context, node, "MaxUnpool", MaxUnpool(window))
}

impl MaxUnpool {
    /// The shape that pooling came from, as the attributes tell it.
    fn inferred(&self, shape: &[usize]) -> TractResult<TVec<usize>> {
        let Some((front, spatial)) = shape.split_at_checked(2) else {
            bail!("the input has fewer than three axes");
        };
        let kernel = self.0.kernel.as_deref().unwrap_or_default();
        let mut inferred: TVec<usize> = front.into();
        for (slide, extent) in self.0.slides(kernel, spatial)?.iter().zip(spatial) {
            let unpadded = extent.saturating_sub(1) * slide.stride + slide.kernel;
            inferred.push(
                unpadded
                    .checked_sub(slide.before + slide.after)
                    .context("the padding is larger than the output")?,
            );
        }
        Ok(inferred)
    }

    fn wanted(numbers: &[i64], inferred: &[usize]) -> TractResult<TVec<usize>> {
        ensure!(
            numbers.len() == inferred.len(),
            "output_shape has {} axes",
            numbers.len()
        );
        numbers
            .iter()
            .zip(inferred)
            .map(|(number, least)| {
                let extent = usize::try_from(*number).ok();
                extent
                    .filter(|extent| extent >= least)
                    .with_context(|| format!("output_shape holds {number}, but {least} are needed"))
            })
            .collect()
    }
}

impl Kernel for MaxUnpool {
    fn facts(&self, inputs: &Facts<'_>, unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let (input, places) = (inputs.need(0)?, inputs.need(1)?);
        let shape = extents(input)?;
        ensure!(
            places.shape == input.shape && places.datum_type == DatumType::I64,
            "the indices do not fit the input"
        );
        let inferred = self.inferred(&shape)?;
        let output: TVec<TDim> = match (inputs.get(2), inputs.integers(2)?) {
            (None, _) => inferred.iter().map(ToDim::to_dim).collect(),
            (Some(_), Some(numbers)) => {
                let wanted = Self::wanted(&numbers, &inferred)?;
                wanted.iter().map(ToDim::to_dim).collect()
            }
            (Some(_), None) => (0..shape.len()).map(|axis| unknown.extent(axis)).collect(),
        };
        Ok(tvec![input.datum_type.fact(&*output)])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let input = inputs.need(0)?;
        let inferred = self.inferred(input.shape())?;
        let shape = match inputs.get(2) {
            Some(_) => Self::wanted(&inputs.integers(2)?, &inferred)?,
            None => inferred.clone(),
        };
        check_bytes(&shape, input.datum_type().size_of())?;
        let places = inputs.integers(1)?;
        let output = dispatch_numbers!(unpooled(input.datum_type())(
            input, &places, &inferred, &shape
        ))?;
        Ok(tvec![output])
    }
}

/// Indices count in the inferred shape, which lies at the beginning of the wanted one.
fn unpooled<T: Datum + Copy>(
    input: &Tensor,
    places: &[i64],
    inferred: &[usize],
    shape: &[usize],
) -> TractResult<Tensor> {
    let mut output = vec![T::default(); volume(shape)?];
    let limit = volume(inferred)?;
    for (value, place) in slice::<T>(input)?.iter().zip(places) {
        let mut rest = usize::try_from(*place)
            .ok()
            .filter(|place| *place < limit)
            .with_context(|| format!("index {place} lies outside an output of {limit}"))?;
        let (mut at, mut stride) = (0, 1);
        for (extent, wanted) in inferred.iter().zip(shape).rev() {
            at += rest % extent * stride;
            rest /= extent;
            stride *= wanted;
        }
        output[at] = *value;
    }
    tensor(shape, output)
}
