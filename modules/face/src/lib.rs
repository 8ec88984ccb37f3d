//! Model module: finds faces in a JPEG or PNG image.
//!
//! The input `image` is one encoded image, a BYTES tensor of shape `[1]`: what a camera or an
//! upload gives, so that no pixel crosses a network. The outputs are `boxes`, FP32 `[faces, 4]`
//! (left, top, right, bottom in pixels of the image as it is displayed, after its EXIF
//! orientation), and `scores`, FP32 `[faces]` in `(0.7, 1]`, best first. An image without a face
//! gives no rows. An image that cannot be decoded is the caller's fault, and the error says why.
//!
//! Decode, shrink to 320 x 240 while the rows come in, normalise, run the graph `ultraface320`,
//! decode its box regressions, drop overlapping boxes.
//!
//! The guest is the only part that calls the host; [`image`], [`resize`] and [`detect`] are pure and
//! are tested natively.

pub mod detect;
pub mod image;
pub mod resize;

use tidegate_module_sdk::{Graph, Inputs, Module, Outputs, Result, make, read, strings};

use detect::{INPUT_HEIGHT, INPUT_WIDTH};

/// The guest.
#[derive(Debug)]
pub struct Face;

impl Module for Face {
    fn infer(mut inputs: Inputs) -> Result<Outputs> {
        let elements = strings(&inputs.take("image")?)?;
        let [file] = elements.as_slice() else {
            return Err(format!(
                "`image` must hold one image, it holds {}",
                elements.len()
            ));
        };
        let picture = image::decode(file).map_err(|error| format!("`image`: {error}"))?;

        let input = make(&[1, 3, INPUT_HEIGHT, INPUT_WIDTH], &picture.normalised)?;
        let mut raw = Graph::load("ultraface320")?.run([("input", input)])?;
        let scores = read::<f32>(&raw.take("scores")?)?;
        let boxes = read::<f32>(&raw.take("boxes")?)?;
        let faces = detect::faces(&scores, &boxes, picture.width, picture.height)?;

        let corners: Vec<f32> = faces.iter().flat_map(|face| face.corners).collect();
        let scores: Vec<f32> = faces.iter().map(|face| face.score).collect();
        Ok(Outputs::new()
            .with("boxes", make(&[faces.len(), 4], &corners)?)
            .with("scores", make(&[faces.len()], &scores)?))
    }
}

tidegate_module_sdk::export!(Face);
