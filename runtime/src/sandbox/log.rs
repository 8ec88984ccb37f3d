//! What guests write to standard error, on its way to the log.
//!
//! A guest is not trusted with the log: lines are cut, control characters escaped, each request may
//! write so many bytes, and all requests of a module together so many lines a second. What is left
//! out is counted.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Terms;

/// Lines that a module may write in each window.
const LINES_MAX: u32 = 20;

const WINDOW: Duration = Duration::from_secs(1);

/// Longest line.
const LINE_BYTES_MAX: usize = 512;

/// How much a module has written lately.
#[derive(Debug, Default)]
pub(crate) struct LogGate(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl LogGate {
    /// Whether a line may pass at `now`, and how many did not since the last that could.
    pub(super) fn admit(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |began: Instant| now.saturating_duration_since(began) >= WINDOW;
        if window.began.is_none_or(is_over) {
            window.began = Some(now);
            window.lines = 0;
        }
        if window.lines >= LINES_MAX {
            window.left_out += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

/// What one request has written, up to its last unfinished line.
#[derive(Debug)]
pub(super) struct GuestLog {
    line: Vec<u8>,
    bytes_left: usize,
}

impl GuestLog {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            line: Vec::new(),
            bytes_left: bytes_max,
        }
    }

    /// Takes what a guest wrote; beyond the limit of a request it is lost.
    pub(super) fn write(&mut self, bytes: &[u8], terms: &Terms) {
        let bytes = &bytes[..bytes.len().min(self.bytes_left)];
        self.bytes_left -= bytes.len();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
            }
            if *byte == b'\n' || self.line.len() >= LINE_BYTES_MAX {
                self.finish(terms);
            }
        }
    }

    /// Logs the line that is not finished.
    pub(super) fn finish(&mut self, terms: &Terms) {
        if self.line.is_empty() {
            return;
        }
        if let Some(left_out) = terms.log.admit(Instant::now()) {
            let text = String::from_utf8_lossy(&self.line);
            let text = text.escape_debug();
            tracing::info!(model = terms.model, left_out, "guest wrote: {text}");
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_writes_so_many_lines_a_second_and_the_rest_is_counted() {
        let gate = LogGate::default();
        let start = Instant::now();
        let passed = (0..100).filter(|_| gate.admit(start).is_some()).count();
        assert_eq!(passed, LINES_MAX as usize);
        assert_eq!(gate.admit(start + WINDOW), Some(100 - u64::from(LINES_MAX)));
    }
}
