//! The answer of a relay: outputs or a failure, and always how loaded it is.

use std::time::Duration;

use bytes::Bytes;
use tidegate_inference::{Failure, FailureKind, NamedTensor};

use crate::cbor::{Reader, Writer, cut, micros, milli};
use crate::tensor::{self, Descriptions};
use crate::{DecodeError, EncodeError, Encoded, Kind, MESSAGE_BYTES_MAX, SLOTS_MAX};

const LOAD: u64 = 0;
const ANSWER: u64 = 1;
const FAILURE: u64 = 2;

const QUEUE: u64 = 0;
const SERVICE: u64 = 1;
const OUTPUTS: u64 = 2;

const KIND: u64 = 0;
const MESSAGE: u64 = 1;
const RETRY_AFTER: u64 = 2;

const SLOTS: u64 = 0;
const BUSY: u64 = 1;
const QUEUED: u64 = 2;
const WAIT: u64 = 3;
const RESERVED: u64 = 4;
const DRAINING: u64 = 5;

/// The answer of a relay.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplyMessage {
    /// The outputs, or why there are none.
    pub result: Result<Answer, Failure>,
    /// How loaded the relay is as it replies.
    pub load: LoadReport,
}

/// The outputs of a request, and what they took.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The outputs, within the limits of a request's inputs.
    pub outputs: Vec<NamedTensor>,
    /// Time in the relay's queue. Crosses in microseconds, at most [`crate::DURATION_MAX`].
    pub queue: Duration,
    /// Time of the run. Crosses in microseconds, at most [`crate::DURATION_MAX`].
    pub service: Duration,
}

/// How loaded a relay is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadReport {
    /// Requests that it runs at a time.
    pub slots: u32,
    /// Requests that run.
    pub busy: u32,
    /// Requests that wait.
    pub queued: u32,
    /// How long a request that arrives now would wait. Crosses in microseconds, at most
    /// [`crate::DURATION_MAX`].
    pub wait: Duration,
    /// Slots that agents have reserved on it, all together. Crosses in thousandths between 0 and
    /// [`crate::SLOTS_MAX`]; what lies outside is written as the nearer bound, and NaN as 0.
    pub reserved: f64,
    /// Whether it takes no new requests.
    pub draining: bool,
}

impl ReplyMessage {
    /// Writes the message. A failure always fits, its message cut to [`MESSAGE_BYTES_MAX`]; outputs
    /// fail if they exceed a limit.
    pub fn encode(&self) -> Result<Encoded, EncodeError> {
        let mut writer = Writer::new(Kind::Reply);
        writer.map(2);
        writer.key(LOAD);
        self.load.write(&mut writer);
        let payload = match &self.result {
            Ok(answer) => {
                writer.key(ANSWER);
                writer.map(3);
                writer.key(QUEUE);
                writer.uint(micros(answer.queue));
                writer.key(SERVICE);
                writer.uint(micros(answer.service));
                writer.key(OUTPUTS);
                tensor::write(&mut writer, "outputs", &answer.outputs)?
            }
            Err(failure) => {
                writer.key(FAILURE);
                write_failure(&mut writer, failure);
                Vec::new()
            }
        };
        let head = writer.finish()?;
        Ok(Encoded { head, payload })
    }
}

/// A decoded reply header: knows how many payload bytes follow, and becomes the message with them.
#[derive(Debug)]
pub struct ReplyHeader {
    load: LoadReport,
    result: Result<AnswerHeader, Failure>,
}

#[derive(Debug)]
struct AnswerHeader {
    queue: Duration,
    service: Duration,
    outputs: Descriptions,
}

impl ReplyHeader {
    /// Parses the CBOR behind a prefix of [`Kind::Reply`].
    pub fn decode(header: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(header);
        let reply = reader.map("reply", |reader, map| {
            reader.key(map, LOAD)?;
            let load = LoadReport::read(reader)?;
            let result = if reader.optional_key(map, FAILURE)? {
                Err(read_failure(reader)?)
            } else {
                reader.key(map, ANSWER)?;
                Ok(AnswerHeader::read(reader)?)
            };
            Ok(Self { load, result })
        })?;
        reader.finish()?;
        Ok(reply)
    }

    /// Bytes that follow, at most [`crate::PAYLOAD_BYTES_MAX`]; none behind a failure.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.result
            .as_ref()
            .map_or(0, |answer| answer.outputs.payload_len())
    }

    /// Joins the header and its payload, which is shared and not copied.
    pub fn with_payload(self, payload: Bytes) -> Result<ReplyMessage, DecodeError> {
        let load = self.load;
        let result = match self.result {
            Ok(answer) => Ok(Answer {
                outputs: answer.outputs.with_payload(payload)?,
                queue: answer.queue,
                service: answer.service,
            }),
            Err(failure) => {
                Descriptions::default().with_payload(payload)?;
                Err(failure)
            }
        };
        Ok(ReplyMessage { result, load })
    }
}

impl AnswerHeader {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.map("answer", |reader, map| {
            reader.key(map, QUEUE)?;
            let queue = reader.micros("queue time")?;
            reader.key(map, SERVICE)?;
            let service = reader.micros("service time")?;
            reader.key(map, OUTPUTS)?;
            let outputs = Descriptions::read(reader, "outputs")?;
            Ok(Self {
                queue,
                service,
                outputs,
            })
        })
    }
}

impl LoadReport {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.map(6);
        writer.key(SLOTS);
        writer.uint(self.slots.into());
        writer.key(BUSY);
        writer.uint(self.busy.into());
        writer.key(QUEUED);
        writer.uint(self.queued.into());
        writer.key(WAIT);
        writer.uint(micros(self.wait));
        writer.key(RESERVED);
        writer.uint(milli(self.reserved));
        writer.key(DRAINING);
        writer.flag(self.draining);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.map("load report", |reader, map| {
            reader.key(map, SLOTS)?;
            let slots = reader.count("slots", u32::MAX)?;
            reader.key(map, BUSY)?;
            let busy = reader.count("busy slots", u32::MAX)?;
            reader.key(map, QUEUED)?;
            let queued = reader.count("queued requests", u32::MAX)?;
            reader.key(map, WAIT)?;
            let wait = reader.micros("wait")?;
            reader.key(map, RESERVED)?;
            let reserved = reader.milli("reserved slots", SLOTS_MAX)?;
            reader.key(map, DRAINING)?;
            let draining = reader.flag("draining")?;
            Ok(Self {
                slots,
                busy,
                queued,
                wait,
                reserved,
                draining,
            })
        })
    }
}

fn write_failure(writer: &mut Writer, failure: &Failure) {
    writer.map(if failure.retry_after.is_some() { 3 } else { 2 });
    writer.key(KIND);
    writer.uint(number(failure.kind));
    writer.key(MESSAGE);
    writer.text(cut(&failure.message, MESSAGE_BYTES_MAX));
    if let Some(wait) = failure.retry_after {
        writer.key(RETRY_AFTER);
        writer.uint(micros(wait));
    }
}

fn read_failure(reader: &mut Reader<'_>) -> Result<Failure, DecodeError> {
    reader.map("failure", |reader, map| {
        reader.key(map, KIND)?;
        let kind = reader.one_of("failure kind", &FailureKind::ALL, number)?;
        reader.key(map, MESSAGE)?;
        let message = reader.text("failure message", MESSAGE_BYTES_MAX)?;
        let mut failure = Failure::new(kind, message);
        if reader.optional_key(map, RETRY_AFTER)? {
            failure.retry_after = Some(reader.micros("retry after")?);
        }
        Ok(failure)
    })
}

/// A failure kind's number on the wire, which no later version may change.
fn number(kind: FailureKind) -> u64 {
    match kind {
        FailureKind::Invalid => 0,
        FailureKind::NotFound => 1,
        FailureKind::TooLarge => 2,
        FailureKind::Overloaded => 3,
        FailureKind::Unavailable => 4,
        FailureKind::DeadlineExceeded => 5,
        FailureKind::Cancelled => 6,
        FailureKind::Module => 7,
        FailureKind::Internal => 8,
    }
}
