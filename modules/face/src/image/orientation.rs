//! How a stored image must be turned to be displayed: the eight values of EXIF's orientation.

/// What to do with the stored image, as the EXIF 2.32 standard numbers it, 1 to 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orientation {
    /// Rows and columns change places, before the flips.
    transposed: bool,
    /// The displayed image is flipped left to right.
    flipped_x: bool,
    /// The displayed image is flipped top to bottom.
    flipped_y: bool,
}

impl Orientation {
    /// Displayed as stored.
    pub(super) const UPRIGHT: Self = Self {
        transposed: false,
        flipped_x: false,
        flipped_y: false,
    };

    /// From EXIF's number. Another number than 1 to 8 means nothing: displayed as stored.
    pub(super) fn from_exif(number: u16) -> Self {
        let (transposed, flipped_x, flipped_y) = match number {
            2 => (false, true, false),
            3 => (false, true, true),
            4 => (false, false, true),
            5 => (true, false, false),
            6 => (true, true, false),
            7 => (true, true, true),
            8 => (true, false, true),
            _ => (false, false, false),
        };
        Self {
            transposed,
            flipped_x,
            flipped_y,
        }
    }

    /// Width and height stored from those displayed, and the other way round.
    pub(super) fn sides(self, (width, height): (usize, usize)) -> (usize, usize) {
        if self.transposed {
            (height, width)
        } else {
            (width, height)
        }
    }

    /// Where the pixel at `(x, y)` of the displayed image, `width` by `height`, is stored.
    pub(super) fn stored(
        self,
        (x, y): (usize, usize),
        (width, height): (usize, usize),
    ) -> (usize, usize) {
        let x = if self.flipped_x { width - 1 - x } else { x };
        let y = if self.flipped_y { height - 1 - y } else { y };
        if self.transposed { (y, x) } else { (x, y) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which stored corner is displayed at the top left, and which at the top right, by the table
    /// of the standard ("the 0th row is at the visual top, the 0th column at the left" and so on).
    #[test]
    fn corners_are_where_the_standard_says() {
        let check = |number, top_left, top_right| {
            let orientation = Orientation::from_exif(number);
            let displayed = orientation.sides((4, 3));
            let at = |x| orientation.stored((x, 0), displayed);
            assert_eq!(
                (at(0), at(displayed.0 - 1)),
                (top_left, top_right),
                "{number}"
            );
        };
        check(1, (0, 0), (3, 0));
        check(2, (3, 0), (0, 0));
        check(3, (3, 2), (0, 2));
        check(4, (0, 2), (3, 2));
        check(5, (0, 0), (0, 2));
        check(6, (0, 2), (0, 0));
        check(7, (3, 2), (3, 0));
        check(8, (3, 0), (3, 2));
        check(9, (0, 0), (3, 0));
    }
}
