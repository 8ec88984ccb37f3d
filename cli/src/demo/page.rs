//! The report as one HTML page with plots, readable without a network.

use std::fmt::Write as _;

use super::load::{Outcome, Record};
use super::report::{Report, table};
use super::view::Sample;

/// Size of a plot's drawing area, in pixels.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 180.0;

/// Most latency marks a plot: more would make the page heavy and look the same.
const MARKS_MAX: usize = 4_000;

/// What one policy left behind.
#[derive(Debug)]
pub(super) struct Course {
    /// The policy's name.
    pub(super) name: &'static str,
    /// What the agent reported, four times a second.
    pub(super) samples: Vec<Sample>,
    /// Every request.
    pub(super) records: Vec<Record>,
}

/// The whole page.
pub(super) fn page(report: &Report, courses: &[Course]) -> String {
    let mut html = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Tidegate demo</title>\n\
         <style>body{font:15px system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}\
         pre{background:#f4f4f4;padding:1em;overflow-x:auto;font-size:12px}svg{width:100%;height:auto;background:#fafafa}\
         .arrivals{stroke:#0a7ea4}.forecast{stroke:#d08700}.capacity{stroke:#2c8a2c}.relays{stroke:#7b3fb5}\
         path,line{fill:none;stroke-width:1.5}line.slo{stroke:#c0392b;stroke-dasharray:6 4}\
         circle.local{fill:#0a7ea4}circle.relay{fill:#7b3fb5}circle.failed{fill:#c0392b}\
         text{font:12px system-ui,sans-serif}</style>\n<h1>Tidegate demo</h1>\n",
    );
    write!(
        html,
        "<p>Trace {}, {:.0} s, seed {}, SLO {:.0} ms, {:.1} ms of service a request, relays start after {:.1} s. \
         Every policy replays the same arrivals.</p>\n<pre>{}</pre>\n",
        escape(&report.trace),
        report.duration_s,
        report.seed,
        report.slo_ms,
        report.service_ms,
        report.relay_delay_ms / 1e3,
        escape(&table(report)),
    )
    .expect("writing to a string succeeds");
    html.push_str(
        "<p>Rates: <b style=\"color:#0a7ea4\">arrivals</b>, <b style=\"color:#d08700\">forecast</b> (upper quantile at \
         the lead time), <b style=\"color:#2c8a2c\">capacity</b>, all per second; \
         <b style=\"color:#7b3fb5\">relays</b> (own scale). Below them each request's latency, by where it \
         ran (device, <b style=\"color:#7b3fb5\">relay</b>, <b style=\"color:#c0392b\">refused or lost</b>), and the SLO.</p>\n",
    );
    for course in courses {
        write!(
            html,
            "<h2>{}</h2>\n{}\n{}\n",
            course.name,
            rates(course, report.duration_s),
            dots(course, report)
        )
        .expect("writing to a string succeeds");
    }
    html.push_str("</html>\n");
    html
}

fn rates(course: &Course, duration_s: f64) -> String {
    let top = course
        .samples
        .iter()
        .flat_map(|sample| [sample.arrival_rps, sample.forecast_rps, sample.capacity_rps])
        .fold(1.0, f64::max);
    let relays = course
        .samples
        .iter()
        .map(|sample| sample.relays)
        .max()
        .unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "a handful of relays")]
    let count = |relays: usize| relays as f64;
    let path = |class: &str, top: f64, value: &dyn Fn(&Sample) -> f64| {
        let mut path = format!("<path class=\"{class}\" d=\"");
        for (index, sample) in course.samples.iter().enumerate() {
            let (x, y) = (
                sample.time_s / duration_s * WIDTH,
                HEIGHT - value(sample) / top * HEIGHT,
            );
            let verb = if index == 0 { 'M' } else { 'L' };
            write!(path, "{verb}{x:.1} {y:.1}").expect("writing to a string succeeds");
        }
        path + "\"/>"
    };
    svg(
        &[
            path("arrivals", top, &|sample| sample.arrival_rps),
            path("forecast", top, &|sample| sample.forecast_rps),
            path("capacity", top, &|sample| sample.capacity_rps),
            path("relays", count(relays.max(1)) * 1.05, &|sample| {
                count(sample.relays)
            }),
        ]
        .concat(),
        &format!("{top:.0}/s, {relays} relays"),
    )
}

fn dots(course: &Course, report: &Report) -> String {
    let top_ms = report.slo_ms * 2.0;
    let step = course.records.len().div_ceil(MARKS_MAX).max(1);
    let mut marks = String::new();
    for record in course.records.iter().step_by(step) {
        let class = match record.outcome {
            Outcome::Local => "local",
            Outcome::Relay => "relay",
            Outcome::Refused | Outcome::Lost => "failed",
        };
        let x = record.arrival.as_secs_f64() / report.duration_s * WIDTH;
        let y = HEIGHT - (record.latency.as_secs_f64() * 1e3 / top_ms).min(1.0) * HEIGHT;
        write!(
            marks,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.6\"/>"
        )
        .expect("writing to a string succeeds");
    }
    let slo = HEIGHT / 2.0;
    write!(
        marks,
        "<line class=\"slo\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{slo}\" y2=\"{slo}\"/>"
    )
    .expect("writing to a string succeeds");
    svg(&marks, &format!("{top_ms:.0} ms"))
}

fn svg(content: &str, top: &str) -> String {
    format!(
        "<svg viewBox=\"0 -16 {WIDTH} {:.0}\" role=\"img\"><text x=\"2\" y=\"-4\">{top}</text>{content}</svg>",
        HEIGHT + 20.0
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
