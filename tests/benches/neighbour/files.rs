//! Module files that an agent must refuse, put in the place of one that it serves.

use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tidegate_inference::{Dtype, TensorSpec};
use tidegate_registry::signature::{Layout, SecretKey, sign};
use tidegate_runtime::module::pass_through;
use tidegate_runtime::{Manifest, ModuleFile};
use tidegate_tests::models::{doubler, field, guest, model, number, text};
use tidegate_tests::site::{Agent, Site};
use tidegate_tests::wait::eventually;

/// How often the agent looks at its files, which is the shortest that it takes.
const LOOK: Duration = Duration::from_secs(1);

/// Files of each kind that are made before the neighbour is measured.
const VARIANTS: u64 = 12;

/// A kind of file that is refused, or that costs much before it is taken.
pub(super) struct Bad {
    pub(super) name: &'static str,
    /// What the agent says of it.
    says: &'static str,
    variants: Variants,
}

enum Variants {
    Bytes(Vec<Vec<u8>>),
    /// Empty sections of so many bytes in all.
    Sparse(u64),
}

fn author() -> SecretKey {
    SecretKey::from_seed([1; 32])
}

/// The victim in a version, with a graph of its own behind a guest that was not signed.
fn victim(version: &str, component: &[u8], onnx: &[u8]) -> Vec<u8> {
    let x = |name: &str| TensorSpec {
        name: name.to_owned(),
        dtype: Dtype::Fp32,
        shape: vec![-1, 4],
    };
    let manifest = Manifest::new("victim", version, vec![x("x")], vec![x("y")]);
    let file = ModuleFile::assemble(component, manifest, &[("g", onnx)]);
    file.expect("it reads back").file().to_vec()
}

fn with_graph(version: &str, onnx: &[u8]) -> Vec<u8> {
    victim(version, &pass_through("g").expect("the name fits"), onnx)
}

fn signed(file: &[u8], key: &SecretKey) -> Vec<u8> {
    sign(file, key).expect("it can be signed").file
}

/// What to put into the agent's configuration: the neighbour, and the victim by its author alone.
pub(super) fn config() -> String {
    format!(
        "modules = ['neighbour.wasm', 'victim.wasm']\nslots = 2\nslo-ms = 20000\n\
         [rollout]\npoll-s = {}\n\
         [trust]\nallow-unsigned = true\n[[trust.rules]]\nnames = ['victim']\nkeys = ['author.pub']\n",
        LOOK.as_secs(),
    )
}

pub(super) fn all(site: &Site) -> Vec<Bad> {
    site.write("author.pub", author().public().to_string());
    let good = |version: &str| with_graph(version, &doubler());
    let each = |make: &dyn Fn(u64) -> Vec<u8>| Variants::Bytes((0..VARIANTS).map(make).collect());
    let newer = |at: u64| format!("3.{at}.0");
    // The graph is padded, so that the files differ before what is signed ends.
    let signed_newer = |at: u64| signed(&good(&newer(at)), &author());
    let bomb = |onnx: Vec<u8>| each(&move |at| signed(&with_graph(&newer(at), &onnx), &author()));
    let bad = |name, says, variants| Bad {
        name,
        says,
        variants,
    };
    vec![
        bad(
            "unknown-key",
            "is not trusted",
            each(&|at| signed(&good(&newer(at)), &SecretKey::from_seed([2; 32]))),
        ),
        bad(
            "stripped-signature",
            "is not signed",
            each(&|at| good(&newer(at))),
        ),
        bad(
            "truncated-file",
            "unexpected end-of-file",
            each(&|at| {
                let file = signed_newer(at);
                file[..file.len() * 2 / 3].to_vec()
            }),
        ),
        bad(
            "reordered-signature",
            "is not",
            each(&|at| {
                let mut file = signed_newer(at);
                let signature = signature(&file);
                // The hashes of two parts change places.
                let (first, second) = (signature.end - 64, signature.end - 32);
                let (head, tail) = file.split_at_mut(second);
                head[first..].swap_with_slice(&mut tail[..32]);
                file
            }),
        ),
        bad(
            "swapped-part",
            "part",
            each(&|at| {
                let file = signed_newer(at);
                let other = signed_newer(at + 1);
                let last = |file: &[u8]| {
                    let layout = Layout::of(file).expect("it is signed");
                    layout.parts().first().expect("it has parts").range.clone()
                };
                [
                    &file[..last(&file).start],
                    &other[last(&other)],
                    &file[last(&file).end..],
                ]
                .concat()
            }),
        ),
        bad(
            "older-version",
            "versions never go back",
            each(&|at| signed(&good(&format!("1.{at}.0")), &author())),
        ),
        bad(
            "module-of-1-gib",
            "no tidegate:manifest section",
            Variants::Sparse(1 << 30),
        ),
        bad(
            "module-above-1-gib",
            "more than",
            Variants::Sparse((1 << 30) + 1),
        ),
        bad(
            "hundred-thousand-functions",
            "",
            each(&|at| {
                let functions: String = (0..100_000)
                    .map(|index| format!("(func (result i32) (i32.const {}))", index + at))
                    .collect();
                let component = guest(None, "", &functions, "");
                signed(&victim(&newer(at), &component, &doubler()), &author())
            }),
        ),
        bad(
            "onnx-of-empty-nodes",
            "at most 50000 are allowed",
            bomb(
                // Eight mebibytes, all of them nodes without content, decode to over a gigabyte.
                model(&field(1, &[]).repeat(4 << 20)),
            ),
        ),
        bad(
            "onnx-of-a-huge-constant",
            "at most",
            bomb({
                let shape = [
                    number(1, 2),
                    number(2, 7),
                    number(7, 1 << 20),
                    number(7, 1 << 20),
                ];
                let shape = [shape.concat(), text(8, "shape")].concat();
                let fill = [text(1, "shape"), text(2, "y"), text(4, "ConstantOfShape")].concat();
                model(&[field(1, &fill), field(5, &shape)].concat())
            }),
        ),
        bad(
            "onnx-with-external-data",
            "another file",
            bomb({
                let place = [text(1, "location"), text(2, "/etc/passwd")].concat();
                let weights = [
                    number(1, 4),
                    number(2, 1),
                    text(8, "w"),
                    field(13, &place),
                    number(14, 1),
                ];
                let add = [text(1, "x"), text(1, "w"), text(2, "y"), text(4, "Add")].concat();
                model(&[field(1, &add), field(5, &weights.concat())].concat())
            }),
        ),
    ]
}

fn signature(file: &[u8]) -> Range<usize> {
    let layout = Layout::of(file).expect("it is signed");
    layout.signature().expect("it is signed")
}

impl Bad {
    /// Puts a version in place that the agent takes.
    pub(super) fn begin(&self, site: &Site) {
        let _ = std::fs::remove_dir_all(site.path("state"));
        let file = signed(&with_graph("2.0.0", &doubler()), &author());
        site.write("victim.wasm", file);
    }

    /// Puts a bad file in its place, and gives the agent time to look.
    pub(super) fn replace(
        &self,
        site: Arc<Site>,
        attempt: usize,
    ) -> impl Future<Output = ()> + Send + 'static {
        match &self.variants {
            Variants::Bytes(files) => {
                site.write("bad", &files[attempt % files.len()]);
            }
            Variants::Sparse(len) => {
                let mut file = File::create(site.path("bad")).expect("a file");
                // A section without a name, of all that is left; its length takes five bytes.
                let rest = len - 14;
                let mut head = b"\0asm\x0d\0\x01\0\0".to_vec();
                head.extend((0..5).map(|index| {
                    let bits = u8::try_from((rest >> (7 * index)) & 0x7f).expect("seven bits");
                    if index < 4 { bits | 0x80 } else { bits }
                }));
                file.write_all(&head).expect("room");
                file.set_len(*len).expect("room");
            }
        }
        std::fs::rename(site.path("bad"), site.path("victim.wasm")).expect("it is there");
        tokio::time::sleep(LOOK)
    }

    /// Checks that the agent said what it thinks of them.
    pub(super) async fn check(&self, agent: &Agent) {
        eventually(self.says, async || {
            agent.daemon.log().contains(self.says).then_some(())
        })
        .await;
    }
}
