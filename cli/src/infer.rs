//! `tidegate infer`: asks an agent once, and prints the answer for a person.
//!
//! The agent says which inputs the model takes, so that values need no types: a file becomes one
//! byte string or raw elements, JSON becomes elements. Both ways the Open Inference Protocol's
//! binary extension carries the tensors.

mod input;
mod print;
pub(crate) mod protocol;
mod value;

use std::io;
use std::time::Duration;

use crate::http::{CallError, Client, ServerUrl};
use crate::span;
use input::{Input, InputError};
use protocol::ProtocolError;

/// Longest answer that is read: well above what an agent sends.
const REPLY_BYTES_MAX: usize = 256 << 20;

/// Ask an agent to run a model once.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the model.
    model: String,
    /// The agent.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: ServerUrl,
    /// Value of an input: NAME=@FILE for a file's bytes (an image, or raw elements), or NAME=JSON, such as
    /// `ids=[[1,2,3]]`. Once for each input.
    #[arg(long, value_name = "NAME=VALUE")]
    input: Vec<Input>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// How long to wait for an answer.
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span::seconds)]
    timeout: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InferError {
    /// No response came.
    #[error("cannot reach the agent")]
    Call(#[from] CallError),
    /// The agent refused.
    #[error("the agent answered {status}: {message}")]
    Refused {
        /// Its status.
        status: hyper::StatusCode,
        /// What it says.
        message: String,
    },
    /// The response is not of the protocol.
    #[error("cannot read the agent's answer")]
    Protocol(#[from] ProtocolError),
    /// A value does not fit the model.
    #[error("cannot use the inputs")]
    Input(#[from] InputError),
    /// Standard output is closed or full.
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
}

impl InferError {
    /// Whether the caller can mend it by other arguments.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::Input(_) => true,
            Self::Call(_) | Self::Refused { .. } | Self::Protocol(_) | Self::Print(_) => false,
        }
    }
}

/// Asks once and prints the outputs.
pub(crate) async fn run(args: Args) -> Result<(), InferError> {
    let client = Client::new(args.url, args.timeout, REPLY_BYTES_MAX);
    let path = protocol::model_path(&args.model);
    let metadata = client.get(&path).await?;
    let specs = protocol::read_metadata(accepted(&metadata)?)?;
    let inputs = input::tensors(&args.input, &specs)?;
    let (headers, body) = protocol::write_request(&inputs);
    let response = client
        .post(&format!("{path}/infer"), &headers, body)
        .await?;
    accepted(&response)?;
    let answer = protocol::read_reply(&response)?;
    let print = if args.json { print::json } else { print::text };
    print(&answer, &mut io::stdout().lock()).map_err(InferError::Print)
}

/// The body of a success; what the agent says otherwise.
fn accepted(response: &crate::http::Response) -> Result<&[u8], InferError> {
    if response.status.is_success() {
        return Ok(&response.body);
    }
    Err(InferError::Refused {
        status: response.status,
        message: protocol::read_error(&response.body),
    })
}
