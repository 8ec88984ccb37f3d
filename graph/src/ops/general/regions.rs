//! Features of regions of an image: `RoiAlign`.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Facts, Kernel, Unknown, Values, check_bytes, volume};
use super::own::operator;
use super::real::{Real, Reals, check_real, rounded, with_real};

/// Most sampling points of one region; a bin of a large image has some hundred.
const POINTS_MAX: usize = 1 << 20;

#[derive(Debug)]
struct RoiAlign {
    /// Averages the sampling points of a bin, or takes the largest.
    averages: bool,
    height: usize,
    width: usize,
    /// Sampling points along each axis of a bin; as many as it has pixels if zero.
    sampling: usize,
    scale: f32,
    half_pixel: bool,
}

pub(super) fn roi_align(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let mode: &str = node.get_attr_opt("mode")?.unwrap_or("avg");
    let transform: Option<&str> = node.get_attr_opt("coordinate_transformation_mode")?;
    let kernel = RoiAlign {
        averages: match mode {
            "avg" => true,
            "max" => false,
            other => bail!("mode is {other:?}"),
        },
        height: node.get_attr_opt("output_height")?.unwrap_or(1),
        width: node.get_attr_opt("output_width")?.unwrap_or(1),
        sampling: node.get_attr_opt("sampling_ratio")?.unwrap_or(0),
        scale: node.get_attr_opt("spatial_scale")?.unwrap_or(1.0),
        half_pixel: match transform {
            Some("half_pixel") => true,
            Some("output_half_pixel") => false,
            None => context.onnx_operator_set_version >= 16,
            Some(other) => bail!("coordinate_transformation_mode is {other:?}"),
        },
    };
    ensure!(
        kernel.height > 0 && kernel.width > 0 && kernel.scale.is_finite(),
        "the output is empty, or the scale is no number"
    );
    operator(context, node, "RoiAlign", kernel)
}

impl Kernel for RoiAlign {
    fn facts(&self, inputs: &Facts<'_>, _unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let input = inputs.need(0)?;
        check_real(input.datum_type)?;
        let (regions, batches) = (inputs.need(1)?, inputs.need(2)?);
        check_real(regions.datum_type)?;
        ensure!(input.rank() == 4, "the input must have four axes");
        ensure!(
            regions.rank() == 2 && regions.shape[1] == 4.to_dim() && batches.rank() == 1,
            "regions must have four numbers each, and a place in the batch"
        );
        let shape = [
            regions.shape[0].clone(),
            input.shape[1].clone(),
            self.height.to_dim(),
            self.width.to_dim(),
        ];
        Ok(tvec![input.datum_type.fact(shape)])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        with_real!(inputs.need(0)?.datum_type(), align(self, inputs))
    }
}

/// One sampling point: four pixels and how much each weighs.
#[derive(Clone, Copy)]
struct Point<R> {
    places: [usize; 4],
    weights: [R; 4],
}

/// Where along an axis a region begins, how long a bin is, and how many points it has.
struct Span<R> {
    start: R,
    bin: R,
    points: usize,
}

impl RoiAlign {
    fn span<R: Real>(&self, start: R, end: R, bins: usize) -> TractResult<Span<R>> {
        let scale = R::of(f64::from(self.scale));
        let offset = R::of(if self.half_pixel { 0.5 } else { 0.0 });
        let start = start * scale - offset;
        let mut length = end * scale - offset - start;
        ensure!(
            start.is_finite() && length.is_finite(),
            "the edge of a region is no number"
        );
        if !self.half_pixel {
            length = length.max(R::one());
        }
        let bin = length / R::from_usize(bins).context("too many bins")?;
        let points = match self.sampling {
            0 => bin
                .ceil()
                .max(R::zero())
                .to_usize()
                .context("a region is too large")?,
            points => points,
        };
        Ok(Span { start, bin, points })
    }

    /// The sampling points of a region, bin by bin.
    fn points<R: Real>(
        &self,
        rows: &Span<R>,
        columns: &Span<R>,
        [height, width]: [usize; 2],
        points: &mut Vec<Point<R>>,
    ) -> TractResult<()> {
        let counts = [self.height, self.width, rows.points, columns.points];
        let total = counts
            .iter()
            .try_fold(1_usize, |all, count| all.checked_mul(*count));
        ensure!(
            total.is_some_and(|total| total <= POINTS_MAX),
            "a region needs more than {POINTS_MAX} sampling points"
        );
        points.clear();
        for y in 0..self.height {
            for x in 0..self.width {
                for row in 0..rows.points {
                    let row = corners(rows, y, row, height);
                    for column in 0..columns.points {
                        points.push(point(row, corners(columns, x, column, width), width));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The two pixels of an axis around a point, and how far it lies towards the second; `None` outside.
fn corners<R: Real>(
    span: &Span<R>,
    bin: usize,
    point: usize,
    extent: usize,
) -> Option<(usize, usize, R)> {
    let real = |number: usize| R::from_usize(number).unwrap_or_else(R::nan);
    let step = (real(point) + R::of(0.5)) * span.bin / real(span.points);
    let at = span.start + real(bin) * span.bin + step;
    if !(at >= -R::one() && at <= real(extent)) || extent == 0 {
        return None;
    }
    let at = at.max(R::zero());
    let low = at.to_usize()?;
    if low >= extent - 1 {
        return Some((extent - 1, extent - 1, R::zero()));
    }
    Some((low, low + 1, at - real(low)))
}

fn point<R: Real>(
    row: Option<(usize, usize, R)>,
    column: Option<(usize, usize, R)>,
    width: usize,
) -> Point<R> {
    let (Some((top, bottom, down)), Some((left, right, across))) = (row, column) else {
        return Point {
            places: [0; 4],
            weights: [R::zero(); 4],
        };
    };
    let (up, back) = (R::one() - down, R::one() - across);
    Point {
        places: [
            top * width + left,
            top * width + right,
            bottom * width + left,
            bottom * width + right,
        ],
        weights: [up * back, up * across, down * back, down * across],
    }
}

fn align<R: Real>(kernel: &RoiAlign, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
    let input = inputs.need(0)?;
    let &[batch, channels, height, width] = input.shape() else {
        bail!("the input must have four axes");
    };
    let batches = inputs.integers(2)?;
    let regions = Reals::<R>::new(inputs.need(1)?)?;
    let regions = regions.as_slice()?;
    ensure!(
        regions.len() == batches.len() * 4,
        "regions and batch_indices differ in number"
    );
    let data = Reals::<R>::new(input)?;
    let data = data.as_slice()?;
    let plane = height * width;
    let shape = [batches.len(), channels, kernel.height, kernel.width];
    check_bytes(&shape, size_of::<R>())?;
    let mut output = Vec::with_capacity(volume(&shape)?);
    let mut points = vec![];
    for (region, place) in regions.chunks_exact(4).zip(&batches) {
        let place = usize::try_from(*place).ok().filter(|place| *place < batch);
        let place = place.context("a region lies outside the batch")?;
        let columns = kernel.span(region[0], region[2], kernel.width)?;
        let rows = kernel.span(region[1], region[3], kernel.height)?;
        kernel.points(&rows, &columns, [height, width], &mut points)?;
        let count = rows.points * columns.points;
        let divisor = R::from_usize(count.max(1)).unwrap_or_else(R::one);
        for channel in 0..channels {
            let data = &data[(place * channels + channel) * plane..][..plane];
            if plane == 0 || count == 0 {
                output.resize(output.len() + kernel.height * kernel.width, R::zero());
                continue;
            }
            output.extend(points.chunks_exact(count).map(|bin| {
                let parts = |point: &Point<R>| -> [R; 4] {
                    std::array::from_fn(|at| point.weights[at] * data[point.places[at]])
                };
                if kernel.averages {
                    let sum: R = bin.iter().flat_map(parts).sum();
                    sum / divisor
                } else {
                    bin.iter().flat_map(parts).fold(R::neg_infinity(), R::max)
                }
            }));
        }
    }
    Ok(tvec![rounded(input.datum_type(), &shape, output)?])
}
