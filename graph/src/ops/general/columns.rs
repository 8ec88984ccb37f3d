//! Blocks of columns put back into an image, where they overlap added: `Col2Im`.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::copies::for_each_index;
use super::kernel::{Facts, Kernel, Unknown, Values, check_bytes, extents, volume};
use super::own::operator;
use super::real::{Real, Reals, check_real, rounded, with_real};
use super::window::{Slide, Window};

#[derive(Debug)]
struct Col2Im(Window);

pub(super) fn col2im(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    operator(context, node, "Col2Im", Col2Im(Window::parse(node)?))
}

/// The image that columns make.
struct Image {
    shape: TVec<usize>,
    slides: TVec<Slide>,
    blocks: TVec<usize>,
}

impl Col2Im {
    fn image(&self, columns: &[usize], image: &[i64], block: &[i64]) -> TractResult<Image> {
        let positive = |numbers: &[i64]| -> TractResult<TVec<usize>> {
            let number = |number: &i64| {
                let extent = usize::try_from(*number).ok();
                extent
                    .filter(|extent| (1..=1 << 31).contains(extent))
                    .with_context(|| format!("an extent is {number}"))
            };
            numbers.iter().map(number).collect()
        };
        let (image, block) = (positive(image)?, positive(block)?);
        let slides = self.0.slides(&block, &image)?;
        let blocks = self.0.outputs(&slides, &image)?;
        let &[batch, rows, count] = columns else {
            bail!("the columns must have three axes");
        };
        let elements = volume(&block)?;
        ensure!(
            rows.is_multiple_of(elements) && count == volume(&blocks)?,
            "columns of shape {columns:?} do not make an image of {image:?} by blocks of {block:?}"
        );
        let mut shape: TVec<usize> = tvec![batch, rows / elements];
        shape.extend(image);
        Ok(Image {
            shape,
            slides,
            blocks,
        })
    }
}

impl Kernel for Col2Im {
    fn facts(&self, inputs: &Facts<'_>, unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let input = inputs.need(0)?;
        check_real(input.datum_type)?;
        ensure!(input.rank() == 3, "the columns must have three axes");
        let fact = match (inputs.integers(1)?, inputs.integers(2)?) {
            (Some(image), Some(block)) => {
                let image = self.image(&extents(input)?, &image, &block)?;
                input.datum_type.fact(&*image.shape)
            }
            _ => {
                let &[axes] = &*extents(inputs.need(1)?)? else {
                    bail!("image_shape must have one axis");
                };
                ensure!(
                    axes <= 8,
                    "an image of {axes} axes, at most 8 are supported"
                );
                let mut shape = tvec![input.shape[0].clone()];
                shape.extend((0..=axes).map(|axis| unknown.extent(axis)));
                input.datum_type.fact(&*shape)
            }
        };
        Ok(tvec![fact])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let input = inputs.need(0)?;
        let image = self.image(input.shape(), &inputs.integers(1)?, &inputs.integers(2)?)?;
        check_bytes(&image.shape, input.datum_type().size_of())?;
        with_real!(input.datum_type(), add_columns(input, &image))
    }
}

fn add_columns<R: Real>(input: &Tensor, image: &Image) -> TractResult<TVec<Tensor>> {
    let data = Reals::<R>::new(input)?;
    let data = data.as_slice()?;
    let spatial = &image.shape[2..];
    let plane = volume(spatial)?;
    let count = volume(&image.blocks)?;
    let elements: TVec<usize> = image.slides.iter().map(|slide| slide.kernel).collect();
    let element_count = volume(&elements)?;
    let planes = image.shape[0] * image.shape[1];
    let mut output = vec![R::zero(); volume(&image.shape)?];
    let mut row = 0;
    for_each_index(&elements, |element| {
        let mut block = 0;
        for_each_index(&image.blocks, |index| {
            let place = image
                .slides
                .iter()
                .zip(index)
                .zip(element)
                .zip(spatial)
                .try_fold(0, |place, (((slide, block), element), extent)| {
                    Some(place * extent + slide.place(*block, *element, *extent)?)
                });
            if let Some(place) = place {
                for channel in 0..planes {
                    let from = (channel * element_count + row) * count + block;
                    output[channel * plane + place] += data[from];
                }
            }
            block += 1;
        });
        row += 1;
    });
    Ok(tvec![rounded(input.datum_type(), &image.shape, output)?])
}
