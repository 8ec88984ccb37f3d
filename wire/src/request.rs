//! A request as it crosses to a relay.

use std::time::Duration;

use bytes::Bytes;
use tidegate_inference::{Digest, NamedTensor, Priority};

use crate::cbor::{Reader, Writer, micros};
use crate::tensor::{self, Descriptions};
use crate::{DecodeError, EncodeError, Encoded, Kind, TENSORS_MAX};

const MODULE: u64 = 0;
const TIME_LEFT: u64 = 1;
const PRIORITY: u64 = 2;
const OUTPUTS: u64 = 3;
const INPUTS: u64 = 4;

/// A request as it crosses to a relay.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestMessage {
    /// The module to run, by the digest of its file.
    pub module: Digest,
    /// Time until the answer stops being useful, counted by the relay from receipt of the header,
    /// so that the two clocks need not agree. Crosses in microseconds, rounded down, and at most
    /// [`crate::DURATION_MAX`].
    pub time_left: Duration,
    /// How urgent it is.
    pub priority: Priority,
    /// Names of the outputs wanted; all if empty. At most [`TENSORS_MAX`].
    pub outputs: Vec<String>,
    /// The inputs: at most [`TENSORS_MAX`], and together [`crate::PAYLOAD_BYTES_MAX`] bytes.
    pub inputs: Vec<NamedTensor>,
}

impl RequestMessage {
    /// Writes the message. Fails if it exceeds a limit.
    pub fn encode(&self) -> Result<Encoded, EncodeError> {
        let mut writer = Writer::new(Kind::Request);
        writer.map(5);
        writer.key(MODULE);
        writer.digest(&self.module);
        writer.key(TIME_LEFT);
        writer.uint(micros(self.time_left));
        writer.key(PRIORITY);
        writer.uint(number(self.priority));
        writer.key(OUTPUTS);
        writer.list("outputs", self.outputs.len(), TENSORS_MAX)?;
        for name in &self.outputs {
            writer.name("output name", name)?;
        }
        writer.key(INPUTS);
        let payload = tensor::write(&mut writer, "inputs", &self.inputs)?;
        let head = writer.finish()?;
        Ok(Encoded { head, payload })
    }
}

/// A decoded request header: knows how many payload bytes follow, and becomes the message with them.
#[derive(Debug)]
pub struct RequestHeader {
    module: Digest,
    time_left: Duration,
    priority: Priority,
    outputs: Vec<String>,
    inputs: Descriptions,
}

impl RequestHeader {
    /// Parses the CBOR behind a prefix of [`Kind::Request`].
    pub fn decode(header: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(header);
        let request = reader.map("request", |reader, map| {
            reader.key(map, MODULE)?;
            let module = reader.digest("module digest")?;
            reader.key(map, TIME_LEFT)?;
            let time_left = reader.micros("time left")?;
            reader.key(map, PRIORITY)?;
            let priority = reader.one_of("priority", &Priority::ALL, number)?;
            reader.key(map, OUTPUTS)?;
            let count = reader.list("outputs", TENSORS_MAX)?;
            let outputs = (0..count)
                .map(|_| reader.name("output name"))
                .collect::<Result<_, _>>()?;
            reader.key(map, INPUTS)?;
            let inputs = Descriptions::read(reader, "inputs")?;
            Ok(Self {
                module,
                time_left,
                priority,
                outputs,
                inputs,
            })
        })?;
        reader.finish()?;
        Ok(request)
    }

    /// The module to run, known before the payload arrives, so that a request for a module that is
    /// not ready can be refused at once.
    #[must_use]
    pub fn module(&self) -> Digest {
        self.module
    }

    /// Time until the answer stops being useful, counted from now.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.time_left
    }

    /// How urgent it is.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// Bytes that follow, at most [`crate::PAYLOAD_BYTES_MAX`].
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.inputs.payload_len()
    }

    /// Joins the header and its payload, which is shared and not copied.
    pub fn with_payload(self, payload: Bytes) -> Result<RequestMessage, DecodeError> {
        Ok(RequestMessage {
            module: self.module,
            time_left: self.time_left,
            priority: self.priority,
            outputs: self.outputs,
            inputs: self.inputs.with_payload(payload)?,
        })
    }
}

/// A priority's number on the wire, which no later version may change.
fn number(priority: Priority) -> u64 {
    match priority {
        Priority::Low => 0,
        Priority::Normal => 1,
        Priority::High => 2,
    }
}
