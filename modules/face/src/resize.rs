//! Shrinks (or stretches) an image while its rows come in, so that no full image is needed.
//!
//! Each output pixel is the mean of the source pixels around it, weighted by a triangle as wide as
//! the scale: Pillow's `BILINEAR`, which the network's reference outputs were made with. Without the
//! width (as OpenCV's `INTER_LINEAR`) most pixels of a large photo would be skipped, and faces in it
//! found less surely.

/// A pixel that is being summed: red, green, blue, and a fourth lane that fills a SIMD register.
pub type Pixel = [f32; 4];

/// An image on its way to another size.
#[derive(Debug)]
pub struct Resize {
    horizontal: Vec<Window>,
    vertical: Vec<Window>,
    /// The first output row that still lacks source rows.
    open: usize,
    /// The next source row.
    next: usize,
    source: Vec<Pixel>,
    row: Vec<Pixel>,
    output: Vec<Pixel>,
}

/// The source pixels that make an output pixel, along one axis.
#[derive(Debug)]
struct Window {
    start: usize,
    /// Their shares; the sum is 1.
    weights: Vec<f32>,
}

impl Resize {
    /// From `(width, height)` to `(width, height)`, all above 0.
    #[must_use]
    pub fn new(from: (usize, usize), to: (usize, usize)) -> Self {
        Self {
            horizontal: windows(from.0, to.0),
            vertical: windows(from.1, to.1),
            open: 0,
            next: 0,
            source: vec![[0.0; 4]; from.0],
            row: vec![[0.0; 4]; to.0],
            output: vec![[0.0; 4]; to.0 * to.1],
        }
    }

    /// Takes the next row from the top: red, green and blue of each pixel. Rows below the last are
    /// ignored.
    pub fn push(&mut self, rgb: &[u8]) {
        let y = self.next;
        self.next += 1;
        for (wide, [red, green, blue]) in self.source.iter_mut().zip(rgb.as_chunks::<3>().0) {
            *wide = [f32::from(*red), f32::from(*green), f32::from(*blue), 0.0];
        }
        for (pixel, window) in self.row.iter_mut().zip(&self.horizontal) {
            *pixel = [0.0; 4];
            for (weight, source) in window.weights.iter().zip(&self.source[window.start..]) {
                add(pixel, *weight, source);
            }
        }
        while self
            .vertical
            .get(self.open)
            .is_some_and(|window| window.end() <= y)
        {
            self.open += 1;
        }
        let width = self.row.len();
        for (index, window) in self.vertical.iter().enumerate().skip(self.open) {
            let Some(offset) = y.checked_sub(window.start) else {
                break;
            };
            if let Some(weight) = window.weights.get(offset) {
                let output = &mut self.output[index * width..(index + 1) * width];
                for (pixel, source) in output.iter_mut().zip(&self.row) {
                    add(pixel, *weight, source);
                }
            }
        }
    }

    /// The new image, row by row. Rows that never came count as black.
    #[must_use]
    pub fn finish(self) -> Vec<Pixel> {
        self.output
    }
}

impl Window {
    fn end(&self) -> usize {
        self.start + self.weights.len()
    }
}

fn add(pixel: &mut Pixel, weight: f32, source: &Pixel) {
    for (sum, value) in pixel.iter_mut().zip(source) {
        *sum += weight * value;
    }
}

/// The window of each of `to` output pixels over `from` source pixels.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "pixel positions are small, and are clamped to the source before the cast"
)]
fn windows(from: usize, to: usize) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let reach = scale.max(1.0);
    let window = |index: usize| {
        let centre = (index as f64 + 0.5) * scale;
        let start = (centre - reach + 0.5).max(0.0) as usize;
        let end = ((centre + reach + 0.5) as usize).min(from);
        let weight = |at: usize| (1.0 - ((at as f64 + 0.5 - centre) / reach).abs()).max(0.0);
        let sum: f64 = (start..end).map(weight).sum();
        let weights = (start..end).map(|at| (weight(at) / sum) as f32).collect();
        Window { start, weights }
    };
    (0..to).map(window).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resize(
        from: (usize, usize),
        to: (usize, usize),
        at: impl Fn(usize, usize) -> u8,
    ) -> Vec<f32> {
        let mut resize = Resize::new(from, to);
        for y in 0..from.1 {
            let row: Vec<u8> = (0..from.0).flat_map(|x| [at(x, y); 3]).collect();
            resize.push(&row);
        }
        resize.finish().into_iter().map(|pixel| pixel[1]).collect()
    }

    #[test]
    fn same_size_changes_nothing() {
        let at = |x: usize, y: usize| u8::try_from(40 * y + 7 * x).unwrap();
        let wanted: Vec<f32> = (0..20)
            .map(|index| f32::from(at(index % 5, index / 5)))
            .collect();
        assert_eq!(resize((5, 4), (5, 4), at), wanted);
    }

    /// The wanted values are Pillow 13.0's, which rounds to whole numbers.
    #[test]
    fn halving_and_doubling_agree_with_pillow() {
        let ramp = |x: usize, _: usize| [0, 10, 200, 250][x];
        let close = |got: Vec<f32>, wanted: &[f32]| {
            assert_eq!(got.len(), wanted.len());
            assert!(
                got.iter().zip(wanted).all(|(a, b)| (a - b).abs() <= 0.5),
                "{got:?}"
            );
        };
        close(resize((4, 1), (2, 1), ramp), &[33.0, 194.0]);
        close(
            resize((4, 1), (8, 1), ramp),
            &[0.0, 3.0, 8.0, 58.0, 153.0, 213.0, 238.0, 250.0],
        );
    }

    proptest! {
        #[test]
        fn a_plain_image_stays_plain(
            from in (1..700_usize, 1..40_usize),
            to in (1..50_usize, 1..50_usize),
            value in any::<u8>(),
        ) {
            let got = resize(from, to, |_, _| value);
            prop_assert_eq!(got.len(), to.0 * to.1);
            for pixel in got {
                prop_assert!((pixel - f32::from(value)).abs() < 0.01, "{} from {}", pixel, value);
            }
        }
    }
}
