//! The run as it happens: a small chart in a terminal, one line a second anywhere else.

use std::io::{IsTerminal as _, Stdout, Write as _};

use ratatui::backend::CrosstermBackend;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Axis, Chart, Dataset, GraphType, Paragraph};
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};

/// Rows of the terminal that the live view takes.
const ROWS: u16 = 16;

/// How many samples make a second: the plain view prints one of them.
const SAMPLES_PER_SECOND: usize = 4;

/// What the agent reports at one moment, with what the senders saw.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// Seconds after the start of the run.
    pub(super) time_s: f64,
    /// Arrivals per second.
    pub(super) arrival_rps: f64,
    /// Upper quantile of the forecast at the lead time.
    pub(super) forecast_rps: f64,
    /// What the device sustains within the SLO.
    pub(super) capacity_rps: f64,
    /// Requests waiting on the device.
    pub(super) queued: f64,
    /// Share of requests sent to relays.
    pub(super) burst_share: f64,
    /// Relays that run or start.
    pub(super) relays: usize,
    /// Requests answered here, answered by relays, refused, lost.
    pub(super) counts: [usize; 4],
    /// Latency of the answered so far, in milliseconds.
    pub(super) p50_ms: f64,
    /// The same.
    pub(super) p99_ms: f64,
}

impl Sample {
    fn line(&self, policy: &str) -> String {
        let [local, relay, refused, lost] = self.counts;
        format!(
            "{policy:<10} {:>5.1} s  arrivals {:>5.1}/s  forecast {:>5.1}/s  capacity {:>5.1}/s  \
             queue {:>2.0}  local {local:>4}  relay {relay:>4}  refused {refused:>3}  lost {lost}  \
             relays {}  p50 {:>5.1} ms  p99 {:>6.1} ms",
            self.time_s,
            self.arrival_rps,
            self.forecast_rps,
            self.capacity_rps,
            self.queued,
            self.relays,
            self.p50_ms,
            self.p99_ms,
        )
    }
}

/// Where the run is shown.
pub(super) enum View {
    /// An inline chart, redrawn in place.
    Chart(Box<Terminal<CrosstermBackend<Stdout>>>),
    /// Progress lines.
    Lines,
}

impl View {
    /// A chart if the output is a terminal that can hold one.
    pub(super) fn new() -> Self {
        let options = TerminalOptions {
            viewport: Viewport::Inline(ROWS),
        };
        let chart =
            || Terminal::with_options(CrosstermBackend::new(std::io::stdout()), options).ok();
        let terminal = std::io::stdout().is_terminal().then(chart).flatten();
        terminal.map_or(Self::Lines, |terminal| Self::Chart(Box::new(terminal)))
    }

    /// Shows the run so far; the last sample is the newest. What cannot be shown is not an error.
    pub(super) fn show(&mut self, policy: &str, samples: &[Sample]) {
        let Some(newest) = samples.last() else { return };
        match self {
            Self::Chart(terminal) => {
                // A terminal that went away must not end the run: the report is still wanted.
                let _ = terminal.draw(|frame| draw(frame, policy, samples, newest));
            }
            Self::Lines if samples.len().is_multiple_of(SAMPLES_PER_SECOND) => {
                say(&newest.line(policy))
            }
            Self::Lines => {}
        }
    }
}

impl Drop for View {
    /// Leaves the terminal clean for what is printed next, also where the run was cut short.
    fn drop(&mut self) {
        if let Self::Chart(terminal) = self {
            let _ = terminal.clear();
            let _ = terminal.show_cursor();
        }
    }
}

/// Prints a line; a closed output is not an error.
pub(super) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn draw(frame: &mut Frame<'_>, policy: &str, samples: &[Sample], newest: &Sample) {
    let [chart, numbers] =
        Layout::vertical([Constraint::Min(4), Constraint::Length(3)]).areas(frame.area());
    let points = |value: fn(&Sample) -> f64| -> Vec<(f64, f64)> {
        samples
            .iter()
            .map(|sample| (sample.time_s, value(sample)))
            .collect()
    };
    let series = [
        (
            "arrivals/s",
            Color::Cyan,
            points(|sample| sample.arrival_rps),
        ),
        (
            "forecast/s",
            Color::Yellow,
            points(|sample| sample.forecast_rps),
        ),
        (
            "capacity/s",
            Color::Green,
            points(|sample| sample.capacity_rps),
        ),
    ];
    let top = series
        .iter()
        .flat_map(|(_, _, points)| points.iter().map(|point| point.1))
        .fold(1.0, f64::max);
    let datasets = series
        .iter()
        .map(|(name, color, points)| {
            Dataset::default()
                .name(*name)
                .marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(Style::new().fg(*color))
                .data(points)
        })
        .collect();
    let seconds = newest.time_s.max(10.0);
    frame.render_widget(
        Chart::new(datasets)
            .hidden_legend_constraints((Constraint::Min(0), Constraint::Min(0)))
            .x_axis(
                Axis::default()
                    .bounds([0.0, seconds])
                    .labels(["0 s".into(), format!("{seconds:.0} s")]),
            )
            .y_axis(
                Axis::default()
                    .bounds([0.0, top])
                    .labels(["0".into(), format!("{top:.0}")]),
            ),
        chart,
    );
    let [local, relay, refused, lost] = newest.counts;
    let text = vec![
        Line::from(format!(
            "{policy}: {:.0} s   arrivals {:.1}/s   forecast {:.1}/s   capacity {:.1}/s   queue {:.0}   relays {}",
            newest.time_s,
            newest.arrival_rps,
            newest.forecast_rps,
            newest.capacity_rps,
            newest.queued,
            newest.relays,
        )),
        Line::from(format!(
            "local {local}   relay {relay}   refused {refused}   lost {lost}   burst share {:.0} %",
            newest.burst_share * 100.0,
        )),
        Line::from(format!(
            "p50 {:.1} ms   p99 {:.1} ms",
            newest.p50_ms, newest.p99_ms
        )),
    ];
    frame.render_widget(Paragraph::new(text), numbers);
}
