//! The face detection module on real images, from the file to the boxes.

use serde_json::{Value, json};
use tidegate_tests::checkout::{face_image, face_module};
use tidegate_tests::http::Http;
use tidegate_tests::site::{Agent, Site};

/// The astronaut's face as a person marked it: left, top, right, bottom.
const FACE: [f64; 4] = [180.0, 62.0, 268.0, 174.0];

fn agent(site: &Site) -> Agent {
    site.agent(&format!(
        "modules = ['{}']\nslo-ms = 30000\n",
        face_module().display()
    ))
}

/// Sends an image as one BYTES element, and gives the boxes and their scores.
async fn detect(http: &Http, image: &[u8]) -> (Vec<[f64; 4]>, Vec<f64>) {
    let len = u32::try_from(image.len()).unwrap();
    let data = [&len.to_le_bytes(), image].concat();
    let input = json!({
        "name": "image", "datatype": "BYTES", "shape": [1],
        "parameters": {"binary_data_size": data.len()},
    });
    let answer = http
        .infer_binary("face", &json!({"inputs": [input]}), &data)
        .await
        .unwrap();
    let outputs = answer.outputs();
    let floats = |name: &str| -> Vec<f64> {
        let output = outputs
            .as_array()
            .unwrap()
            .iter()
            .find(|output| output["name"] == name);
        let data = output.unwrap()["data"].as_array().unwrap();
        data.iter()
            .map(|value: &Value| value.as_f64().unwrap())
            .collect()
    };
    let corners = floats("boxes");
    let (boxes, rest) = corners.as_chunks::<4>();
    assert!(rest.is_empty());
    (boxes.to_vec(), floats("scores"))
}

/// Intersection over union.
fn overlap(a: [f64; 4], b: [f64; 4]) -> f64 {
    let area =
        |[left, top, right, bottom]: [f64; 4]| (right - left).max(0.0) * (bottom - top).max(0.0);
    let common = area([
        a[0].max(b[0]),
        a[1].max(b[1]),
        a[2].min(b[2]),
        a[3].min(b[3]),
    ]);
    common / (area(a) + area(b) - common)
}

#[tokio::test]
async fn the_astronaut_has_one_face_and_the_coffee_none() {
    let site = Site::new();
    let agent = agent(&site);
    for name in ["astronaut.png", "astronaut.jpg"] {
        let image = std::fs::read(face_image(name)).unwrap();
        let (boxes, scores) = detect(&agent.http, &image).await;
        assert_eq!(boxes.len(), 1, "{name}: {boxes:?} {scores:?}");
        assert_eq!(scores.len(), 1, "{name}");
        assert!(scores[0] > 0.7, "{name}: {scores:?}");
        let overlap = overlap(boxes[0], FACE);
        assert!(overlap >= 0.6, "{name}: {boxes:?} overlaps by {overlap}");
    }
    for name in ["coffee.png", "coffee.jpg"] {
        let image = std::fs::read(face_image(name)).unwrap();
        let (boxes, scores) = detect(&agent.http, &image).await;
        assert!(
            boxes.is_empty() && scores.is_empty(),
            "{name}: {boxes:?} {scores:?}"
        );
    }
}

#[tokio::test]
async fn an_image_may_be_the_whole_body() {
    let site = Site::new();
    let agent = agent(&site);
    let image = std::fs::read(face_image("astronaut.jpg")).unwrap();
    let request = hyper::Request::post("/v2/models/face/infer")
        .header("inference-header-content-length", "0")
        .body(bytes::Bytes::from(image).into())
        .unwrap();
    let answer = agent.http.send(request).await.unwrap();
    let outputs = answer.outputs();
    assert_eq!(outputs[0]["shape"], json!([1, 4]), "{outputs}");
    assert_eq!(answer.data().len(), 16 + 4);
}

#[tokio::test]
async fn what_is_no_image_is_refused_and_the_next_image_is_served() {
    let site = Site::new();
    let agent = agent(&site);
    let image = std::fs::read(face_image("astronaut.jpg")).unwrap();
    for garbage in [
        &b""[..],
        b"not an image",
        &image[..image.len() / 2],
        b"\x89PNG\r\n\x1a\n",
    ] {
        let len = u32::try_from(garbage.len()).unwrap();
        let data = [&len.to_le_bytes(), garbage].concat();
        let input = json!({
            "name": "image", "datatype": "BYTES", "shape": [1],
            "parameters": {"binary_data_size": data.len()},
        });
        let request = json!({"inputs": [input]});
        let answer = agent
            .http
            .infer_binary("face", &request, &data)
            .await
            .unwrap();
        assert!(!answer.error(400).is_empty());
    }
    let (boxes, _) = detect(&agent.http, &image).await;
    assert_eq!(boxes.len(), 1);
}
