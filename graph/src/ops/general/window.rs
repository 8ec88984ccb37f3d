//! Kernels that slide over spatial axes: where they stand, and how far they reach.

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// Largest extent, stride, dilation or padding along an axis.
const EXTENT_MAX: i64 = 1 << 31;

/// Most elements of a kernel.
const ELEMENTS_MAX: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Padding {
    Explicit,
    Valid,
    SameUpper,
    SameLower,
}

/// The attributes of a node that slides a kernel; each list is as long as there are spatial axes, or
/// left out.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) kernel: Option<Vec<usize>>,
    strides: Option<Vec<usize>>,
    dilations: Option<Vec<usize>>,
    pads: Option<Vec<usize>>,
    padding: Padding,
    ceil: bool,
}

/// One spatial axis of a kernel that slides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slide {
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) dilation: usize,
    pub(super) before: usize,
    pub(super) after: usize,
}

impl Slide {
    /// From the first to the last element of the kernel.
    fn reach(&self) -> usize {
        (self.kernel - 1) * self.dilation + 1
    }

    /// Where element `element` of the kernel lies in an input of this extent, for output `output`.
    pub(super) fn place(&self, output: usize, element: usize, extent: usize) -> Option<usize> {
        let place = (output * self.stride + element * self.dilation).checked_sub(self.before)?;
        (place < extent).then_some(place)
    }
}

impl Window {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let list = |name: &str, least: i64| -> TractResult<Option<Vec<usize>>> {
            let Some(numbers) = node.get_attr_opt_slice::<i64>(name)? else {
                return Ok(None);
            };
            numbers
                .iter()
                .map(|number| {
                    ensure!(
                        (least..=EXTENT_MAX).contains(number),
                        "{name} holds {number}, where {least} to {EXTENT_MAX} are allowed"
                    );
                    Ok(usize::try_from(*number)?)
                })
                .collect::<TractResult<Vec<_>>>()
                .map(Some)
        };
        let kernel = list("kernel_shape", 1)?;
        if let Some(kernel) = &kernel {
            check_kernel(kernel)?;
        }
        let auto_pad: &str = node.get_attr_opt("auto_pad")?.unwrap_or("NOTSET");
        Ok(Self {
            kernel,
            strides: list("strides", 1)?,
            dilations: list("dilations", 1)?,
            pads: list("pads", 0)?,
            padding: match auto_pad {
                "NOTSET" | "" => Padding::Explicit,
                "VALID" => Padding::Valid,
                "SAME_UPPER" => Padding::SameUpper,
                "SAME_LOWER" => Padding::SameLower,
                other => bail!("auto_pad is {other:?}"),
            },
            ceil: node.get_attr_opt("ceil_mode")?.unwrap_or(false),
        })
    }

    /// The axes of a kernel of this shape over an input of these extents; explicit padding without them
    /// where the padding follows from the input.
    pub(super) fn slides(&self, kernel: &[usize], input: &[usize]) -> TractResult<TVec<Slide>> {
        check_kernel(kernel)?;
        let axes = input.len();
        ensure!(
            kernel.len() == axes,
            "a kernel of {} axes for {axes}",
            kernel.len()
        );
        let at = |list: &Option<Vec<usize>>, length: usize, index: usize, default: usize| match list
        {
            None => Ok(default),
            Some(list) if list.len() == length => Ok(list[index]),
            Some(list) => bail!("{} numbers for {length} places", list.len()),
        };
        (0..axes)
            .map(|axis| {
                let mut slide = Slide {
                    kernel: kernel[axis],
                    stride: at(&self.strides, axes, axis, 1)?,
                    dilation: at(&self.dilations, axes, axis, 1)?,
                    before: 0,
                    after: 0,
                };
                ensure!(
                    (slide.kernel - 1)
                        .checked_mul(slide.dilation)
                        .is_some_and(|reach| {
                            i64::try_from(reach).is_ok_and(|reach| reach < EXTENT_MAX)
                        }),
                    "a kernel reaches beyond {EXTENT_MAX}"
                );
                match self.padding {
                    Padding::Explicit => {
                        slide.before = at(&self.pads, 2 * axes, axis, 0)?;
                        slide.after = at(&self.pads, 2 * axes, axes + axis, 0)?;
                    }
                    Padding::Valid => {}
                    Padding::SameUpper | Padding::SameLower => {
                        let outputs = input[axis].div_ceil(slide.stride);
                        let covered = outputs.saturating_sub(1) * slide.stride + slide.reach();
                        let pads = covered.saturating_sub(input[axis]);
                        let less = pads / 2;
                        (slide.before, slide.after) = match self.padding {
                            Padding::SameUpper => (less, pads - less),
                            _ => (pads - less, less),
                        };
                    }
                }
                Ok(slide)
            })
            .collect()
    }

    /// How often the kernel finds room along each axis.
    pub(super) fn outputs(&self, slides: &[Slide], input: &[usize]) -> TractResult<TVec<usize>> {
        slides
            .iter()
            .zip(input)
            .map(|(slide, extent)| {
                let padded = extent + slide.before + slide.after;
                let room = padded.checked_sub(slide.reach()).with_context(|| {
                    format!("a kernel that reaches {} over {padded}", slide.reach())
                })?;
                let mut outputs = room / slide.stride + 1;
                if self.ceil && !room.is_multiple_of(slide.stride) {
                    // The last one must start inside the input or the padding before it.
                    if outputs * slide.stride < extent + slide.before {
                        outputs += 1;
                    }
                }
                Ok(outputs)
            })
            .collect()
    }
}

fn check_kernel(kernel: &[usize]) -> TractResult<()> {
    let elements = kernel
        .iter()
        .try_fold(1_usize, |all, extent| all.checked_mul(*extent));
    ensure!(
        elements.is_some_and(|elements| (1..=ELEMENTS_MAX).contains(&elements)),
        "a kernel of shape {kernel:?}, where 1 to {ELEMENTS_MAX} elements are allowed"
    );
    Ok(())
}
