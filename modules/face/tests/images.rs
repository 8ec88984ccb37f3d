//! Decoding through the module's border: every kind of image, and files made to do harm.

use std::path::Path;

use proptest::prelude::*;
use tidegate_module_face::detect::{INPUT_HEIGHT, INPUT_WIDTH};
use tidegate_module_face::image::{DecodeError, PIXELS_MAX, Picture, SIDE_MAX, decode};

fn read(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Mean difference of two pictures, in steps of 8-bit colour.
fn difference(a: &Picture, b: &Picture) -> f32 {
    let pairs = a.normalised.iter().zip(&b.normalised);
    let sum: f32 = pairs.map(|(a, b)| (a - b).abs() * 128.0).sum();
    sum / a.normalised.len() as f32
}

/// The input that the network's reference outputs were made with, at five places.
#[test]
fn astronaut_is_shrunk_as_for_the_reference_outputs() {
    let picture = decode(&read("images/astronaut.png")).unwrap();
    assert_eq!((picture.width, picture.height), (512, 512));
    let places = [
        ((0, 0), [158.0, 152.0, 157.0]),
        ((160, 60), [212.0, 178.0, 154.0]),
        ((130, 50), [207.0, 170.0, 143.0]),
        ((319, 239), [0.0, 0.0, 0.0]),
        ((40, 200), [231.0, 122.0, 85.0]),
    ];
    for ((x, y), rgb) in places {
        for (channel, wanted) in rgb.into_iter().enumerate() {
            let at = (channel * INPUT_HEIGHT + y) * INPUT_WIDTH + x;
            let got = picture.normalised[at] * 128.0 + 127.0;
            assert!(
                (got - wanted).abs() <= 1.0,
                "({x}, {y}) channel {channel}: {got} {wanted}"
            );
        }
    }
}

/// All hold the same grey picture of 112 x 84 pixels.
#[test]
fn every_kind_gives_the_same_picture() {
    let wanted = decode(&read("tests/images/rgb.png")).unwrap();
    let check = |name: &str, steps_max: f32| {
        let got = decode(&read(&format!("tests/images/{name}")))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((got.width, got.height), (112, 84), "{name}");
        let steps = difference(&got, &wanted);
        assert!(steps <= steps_max, "{name} differs by {steps}");
    };
    check("grey.png", 0.0);
    check("grey16.png", 0.0);
    check("grey-alpha.png", 0.0);
    check("rgba.png", 0.0);
    check("interlaced.png", 0.0);
    check("turned8.png", 0.01);
    check("palette.png", 1.0);
    check("palette-transparent.png", 1.0);
    check("palette4.png", 6.0);
    check("grey.jpg", 1.5);
    check("rgb.jpg", 1.5);
    check("progressive.jpg", 1.5);
    check("chroma-full.jpg", 1.5);
    check("cmyk.jpg", 1.5);
    check("turned3.jpg", 1.5);
    check("turned6.jpg", 1.5);
    check("turned7.jpg", 1.5);
}

#[test]
fn what_is_no_image_is_refused_by_its_first_bytes() {
    let check = |file: &[u8], wanted: &str| {
        let error = decode(file).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    };
    check(b"", "the image is empty");
    check(
        b"GIF89a\x01\0\x01\0",
        "neither a PNG nor a JPEG image: it begins with [47, 49, 46, 38",
    );
    check(b"{", "neither");
    check(b"\x89PNG", "not a sound PNG image");
    check(b"\x89PNG\r\n\x1a\n", "not a sound PNG image");
    check(b"\xff\xd8", "not a sound JPEG image");
    check(b"\xff\xd8\xff\xd9", "not a sound JPEG image");
    check(&[0xff; 64], "neither");
}

#[test]
fn an_image_that_is_cut_short_is_refused_wherever_it_is_cut() {
    for name in [
        "rgb.png",
        "interlaced.png",
        "palette.png",
        "rgb.jpg",
        "progressive.jpg",
    ] {
        let file = read(&format!("tests/images/{name}"));
        // The last 40 bytes may be the end of the last, already complete block of pixels.
        for len in (0..file.len() - 40).step_by(37) {
            assert!(
                decode(&file[..len]).is_err(),
                "{name} cut to {len} of {}",
                file.len()
            );
        }
    }
}

/// Rewrites the size in a PNG's header, with its checksum.
fn png_claiming(width: u32, height: u32) -> Vec<u8> {
    let mut file = read("tests/images/rgb.png");
    file[16..20].copy_from_slice(&width.to_be_bytes());
    file[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = crc32(&file[12..29]);
    file[29..33].copy_from_slice(&checksum.to_be_bytes());
    file
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// Rewrites the size in a JPEG's frame header.
fn jpeg_claiming(name: &str, width: u16, height: u16) -> Vec<u8> {
    let mut file = read(&format!("tests/images/{name}"));
    let is_frame = |bytes: &[u8]| matches!(bytes, [0xff, 0xc0 | 0xc2, 0, 8 | 11 | 17 | 20, 8, ..]);
    let frame = file
        .windows(5)
        .position(is_frame)
        .expect("a JPEG has a frame header");
    file[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    file[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    file
}

#[test]
fn claimed_sizes_outside_the_limits_are_refused() {
    let check = |file: &[u8], wanted: &str| {
        let error = decode(file).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    };
    let side = u32::try_from(SIDE_MAX).unwrap();
    let outside = "pixels are outside the limits (16384 a side,";
    check(&png_claiming(side + 1, 10), outside);
    check(&png_claiming(10, side + 1), outside);
    check(&png_claiming(side, side), outside);
    check(&png_claiming(u32::MAX >> 1, u32::MAX >> 1), outside);
    check(&png_claiming(0, 10), "not a sound PNG image");
    check(&png_claiming(10, 0), "not a sound PNG image");
    check(&jpeg_claiming("rgb.jpg", 16_000, 16_000), outside);
    check(&jpeg_claiming("progressive.jpg", 16_000, 16_000), outside);
    check(
        &jpeg_claiming("rgb.jpg", 65_535, 10),
        "not a sound JPEG image",
    );
    check(&jpeg_claiming("rgb.jpg", 0, 10), "not a sound JPEG image");
    check(&jpeg_claiming("rgb.jpg", 10, 0), "not a sound JPEG image");
}

/// A size within the limits, and the pixels of a far smaller image. A JPEG's decoder takes the end
/// mark as the end of the image and leaves the rest grey; the limit on the size bounds what that costs.
#[test]
fn claims_without_the_pixels_stay_within_the_limits() {
    assert!(decode(&png_claiming(6_000, 6_000)).is_err());
    for name in ["rgb.jpg", "progressive.jpg"] {
        if let Ok(picture) = decode(&jpeg_claiming(name, 3_500, 3_500)) {
            assert_eq!((picture.width, picture.height), (3_500, 3_500));
        }
    }
}

/// Rows that compress to nothing: as many pixels as a PNG may have are decoded, one more is not.
#[test]
fn a_png_bomb_takes_no_memory_for_its_pixels() {
    let bomb = |height: u32| {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 16_000, height);
        encoder.set_compression(png::Compression::High);
        let row = vec![0; 16_000];
        let mut writer = encoder.write_header().unwrap();
        let mut stream = writer.stream_writer().unwrap();
        for _ in 0..height {
            std::io::Write::write_all(&mut stream, &row).unwrap();
        }
        stream.finish().unwrap();
        writer.finish().unwrap();
        file
    };
    let largest = bomb(2_500);
    assert!(largest.len() < PIXELS_MAX / 500);
    let picture = decode(&largest).unwrap();
    assert_eq!((picture.width, picture.height), (16_000, 2_500));
    assert!(matches!(
        decode(&bomb(2_501)),
        Err(DecodeError::Size { height: 2_501, .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damage_never_panics(
        name in prop::sample::select(vec![
            "rgb.png", "interlaced.png", "palette.png", "rgb.jpg", "progressive.jpg", "cmyk.jpg", "turned6.jpg",
        ]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut file = read(&format!("tests/images/{name}"));
        for (index, byte) in damage {
            let at = index.index(file.len());
            file[at] = byte;
        }
        if let Ok(picture) = decode(&file) {
            prop_assert_eq!(picture.normalised.len(), 3 * INPUT_WIDTH * INPUT_HEIGHT);
            prop_assert!(picture.normalised.iter().all(|value| value.abs() < 1.01));
        }
    }
}
