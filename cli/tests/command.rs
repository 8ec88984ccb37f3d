//! The built `tidegate` program, from its arguments to its exit code.

#![expect(
    clippy::unwrap_used,
    reason = "a test may panic, also outside its test functions"
)]

#[path = "command/certs.rs"]
mod certs;
#[path = "command/check.rs"]
mod check;
#[path = "command/infer.rs"]
mod infer;
#[path = "command/onnx.rs"]
mod onnx;
#[path = "command/pack.rs"]
mod pack;
#[path = "command/registry.rs"]
mod registry;
#[path = "command/run.rs"]
mod run;
#[path = "command/scale.rs"]
mod scale;
#[path = "command/signatures.rs"]
mod signatures;
#[path = "command/usage.rs"]
mod usage;

use std::ffi::OsStr;
use std::process::Command;

/// Path of the program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_tidegate");

/// Where the program keeps its state, so that nobody's own is touched.
const STATE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/state");

/// What a run of the program came to.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn tidegate<A: AsRef<OsStr>>(arguments: &[A]) -> Ran {
    let mut command = Command::new(PROGRAM);
    command.env("XDG_STATE_HOME", STATE).args(arguments);
    Ran::of(command)
}

impl Ran {
    /// Runs the program to its end.
    fn of(mut command: Command) -> Self {
        let output = command.output().expect("the program starts");
        let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
        Self {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// Asserts success and gives what was printed.
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self.out
    }

    /// Asserts this exit code, nothing on standard output, and one line that names all of `named`.
    #[track_caller]
    fn fails(self, code: i32, named: &[&str]) {
        assert_eq!((self.code, &*self.out), (Some(code), ""), "{}", self.err);
        for name in named {
            assert!(self.err.contains(name), "{name:?} is not in: {}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }
}
