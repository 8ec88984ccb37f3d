//! How much slower is a model while another on the same agent does harm?
//!
//! A real agent serves the face detector's graph at a fixed rate, whatever its answers take, beside each
//! attack in turn: a hostile guest that is asked over and over, or a module file that is replaced over and
//! over by one that must be refused. Prints for each the neighbour's times before and during the attack, and
//! the ratio at p99.
//!
//! `neighbour [--seconds N] [--clients N] [TEXT]`: N seconds of each (10), by N clients at once (1), of the
//! attacks whose name holds TEXT.

mod files;
mod guests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tidegate_tests::http::Http;
use tidegate_tests::site::Site;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at};

/// From one request to the neighbour to the next: at ten milliseconds each, a third of a core.
const EVERY: Duration = Duration::from_millis(30);

/// What a request to a hostile guest may take, in microseconds.
const TIMEOUT_US: u64 = 100_000;

/// The neighbour's input, NCHW.
const SHAPE: [usize; 4] = [1, 3, 240, 320];

struct Options {
    span: Duration,
    clients: usize,
    wanted: String,
}

impl Options {
    fn read() -> Self {
        let mut options = Self {
            span: Duration::from_secs(10),
            clients: 1,
            wanted: String::new(),
        };
        let mut arguments = std::env::args().skip(1);
        let number = |text: Option<String>| text.and_then(|text| text.parse::<usize>().ok());
        while let Some(argument) = arguments.next() {
            match &*argument {
                // Cargo says so to every bench.
                "--bench" => {}
                "--seconds" => {
                    let seconds = number(arguments.next()).expect("--seconds takes a number");
                    options.span = Duration::from_secs(seconds as u64);
                }
                "--clients" => {
                    options.clients = number(arguments.next()).expect("--clients takes a number");
                }
                text => text.clone_into(&mut options.wanted),
            }
        }
        options
    }
}

#[tokio::main(worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the figures are this program's output")]
async fn main() {
    let options = Options::read();
    let site = Arc::new(Site::new());
    pack_neighbour(&site);
    println!(
        "{:<34} {:>9} {:>9} {:>9} {:>9} {:>6} {:>8}",
        "attack", "quiet p50", "p99", "with p50", "p99", "ratio", "attempts"
    );
    let mut worst: f64 = 0.0;
    for guest in guests::all().filter(|guest| guest.name.contains(&options.wanted)) {
        guest.pack(&site);
        let modules = format!("'neighbour.wasm', '{}.wasm'", guest.name);
        let agent = site.agent(&format!(
            "modules = [{modules}]\nslots = 2\nslo-ms = 20000\n"
        ));
        let ask = {
            let http = agent.http.clone();
            move |_| {
                let http = http.clone();
                async move { guest.ask(&http).await }
            }
        };
        worst = worst.max(measure(guest.name, &agent.http, &options, ask).await);
    }
    let files = files::all(&site);
    for bad in files
        .iter()
        .filter(|bad| bad.name.contains(&options.wanted))
    {
        bad.begin(&site);
        let agent = site.agent(&files::config());
        let once = Options {
            clients: 1,
            span: options.span,
            wanted: String::new(),
        };
        let replace = |attempt| bad.replace(Arc::clone(&site), attempt);
        worst = worst.max(measure(bad.name, &agent.http, &once, replace).await);
        bad.check(&agent).await;
    }
    println!("worst ratio at p99: {worst:.2}");
}

fn pack_neighbour(site: &Site) {
    let package = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let onnx = std::fs::read(package.join("../modules/face/model.onnx")).expect("it ships");
    site.write("neighbour.onnx", onnx);
    site.must_tidegate(&["pack", "neighbour.onnx", "-o", "neighbour.wasm"]);
}

/// Measures the neighbour alone and then during attempts of the attack, and gives the ratio at p99.
#[expect(clippy::print_stdout, reason = "the figures are this program's output")]
async fn measure<A: Future<Output = ()> + Send + 'static>(
    name: &str,
    http: &Http,
    options: &Options,
    attack: impl Fn(usize) -> A,
) -> f64 {
    times(http, options.span / 5).await;
    let quiet = times(http, options.span).await;
    let is_over = AtomicBool::new(false);
    let attempts = AtomicUsize::new(0);
    let attacker = async || {
        while !is_over.load(Ordering::Relaxed) {
            attack(attempts.fetch_add(1, Ordering::Relaxed)).await;
        }
    };
    let attacking = async {
        let attackers: Vec<_> = (0..options.clients).map(|_| attacker()).collect();
        futures_util::future::join_all(attackers).await;
    };
    let measuring = async {
        let times = times(http, options.span).await;
        is_over.store(true, Ordering::Relaxed);
        times
    };
    let (attacked, _) = tokio::join!(measuring, attacking);
    let at = |times: &[Duration], percent: usize| times[(times.len() - 1) * percent / 100];
    let millis = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let ratio = at(&attacked, 99).as_secs_f64() / at(&quiet, 99).as_secs_f64();
    println!(
        "{name:<34} {:>9} {:>9} {:>9} {:>9} {ratio:>6.2} {:>8}",
        millis(at(&quiet, 50)),
        millis(at(&quiet, 99)),
        millis(at(&attacked, 50)),
        millis(at(&attacked, 99)),
        attempts.load(Ordering::Relaxed),
    );
    ratio
}

/// The times from when each request was due to its answer, in order of length.
async fn times(http: &Http, span: Duration) -> Vec<Duration> {
    let len = SHAPE.iter().product::<usize>() * 4;
    let input = json!({"name": "input", "datatype": "FP32", "shape": SHAPE,
        "parameters": {"binary_data_size": len}});
    let request = Arc::new(json!({"inputs": [input], "parameters": {"binary_data_output": true}}));
    let data = Arc::new(vec![0; len]);
    let end = Instant::now() + span;
    let mut due = interval_at(Instant::now(), EVERY);
    let mut under_way = JoinSet::new();
    while Instant::now() < end {
        let at = due.tick().await;
        let (http, request, data) = (http.clone(), Arc::clone(&request), Arc::clone(&data));
        under_way.spawn(async move {
            let answer = http.infer_binary("neighbour", &request, &data).await;
            let answer = answer.expect("the neighbour answers");
            assert_eq!(
                answer.status,
                200,
                "{}",
                String::from_utf8_lossy(&answer.body)
            );
            at.elapsed()
        });
    }
    let mut times = under_way.join_all().await;
    times.sort_unstable();
    times
}
