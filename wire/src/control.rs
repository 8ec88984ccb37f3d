//! What agents and relays tell each other beside requests.
//!
//! The header of a control message is an array of its type and a map. A type that this version does
//! not have is refused: a later version sends one only to a peer whose hello, by an extension,
//! says that it knows it.

use std::time::Duration;

use bytes::Bytes;
use tidegate_inference::Digest;

use crate::cbor::{Reader, Writer, cut, micros, milli};
use crate::{
    DecodeError, EncodeError, Kind, LoadReport, MODULE_BYTES_MAX, MODULES_MAX, REASON_BYTES_MAX,
    SLOTS_MAX,
};

/// Types by their numbers on the wire, which no later version may change.
#[derive(Clone, Copy)]
enum Type {
    Hello = 0,
    Load = 1,
    ModuleReady = 2,
    Reservation = 3,
    Credits = 4,
    GoAway = 5,
    ModuleWanted = 6,
    ModuleOffered = 7,
}

const TYPES: [Type; 8] = [
    Type::Hello,
    Type::Load,
    Type::ModuleReady,
    Type::Reservation,
    Type::Credits,
    Type::GoAway,
    Type::ModuleWanted,
    Type::ModuleOffered,
];

/// The first and most often the only key of a message's map.
const FIRST: u64 = 0;
const SECOND: u64 = 1;
const THIRD: u64 = 2;

/// A message on a control stream, or around the transfer of a module.
#[derive(Clone, Debug, PartialEq)]
pub enum ControlMessage {
    /// First message each way.
    Hello {
        /// The sender's name, for logs and placements; at most
        /// [`tidegate_inference::NAME_BYTES_MAX`] bytes. Whom to trust is decided by certificate.
        name: String,
        /// Agent: the modules that it may ask for. Relay: those that it has ready. At most
        /// [`MODULES_MAX`].
        modules: Vec<ModuleOffer>,
    },
    /// Relay to agent, periodically and on change.
    Load(LoadReport),
    /// Relay to agent: this module is ready to run here.
    ModuleReady {
        /// Which.
        digest: Digest,
    },
    /// Agent to relay: demand that will come. Replaces the agent's reservation before it.
    Reservation {
        /// Slots wanted on this relay, all models together. Crosses in thousandths, between 0 and
        /// [`crate::SLOTS_MAX`].
        slots: f64,
        /// How soon. Crosses in microseconds, at most [`crate::DURATION_MAX`].
        horizon: Duration,
        /// How sure, from 0 to 1. Crosses in thousandths.
        probability: f64,
    },
    /// Relay to agent: how many requests may be in flight on this connection.
    Credits {
        /// The count. Above it a request is refused as overloaded.
        in_flight_max: u32,
    },
    /// Either side: no new requests, please; those in flight will be finished.
    GoAway {
        /// For the log; cut to [`REASON_BYTES_MAX`] when it is written.
        reason: String,
    },
    /// Relay to agent, first on a stream of its own: send this module.
    ModuleWanted {
        /// Which.
        digest: Digest,
    },
    /// Agent to relay, the answer to `ModuleWanted`: this many bytes follow.
    ModuleOffered {
        /// Which.
        digest: Digest,
        /// Bytes that follow, at most [`MODULE_BYTES_MAX`]; 0 if it is not to be had.
        len: u64,
    },
}

/// A module, by name and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleOffer {
    /// The model's name; at most [`tidegate_inference::NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// Digest of the file.
    pub digest: Digest,
    /// Bytes of the file, at most [`MODULE_BYTES_MAX`].
    pub len: u64,
}

impl ControlMessage {
    /// Writes prefix and header. Only a hello or an offer can exceed a limit.
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        let mut writer = Writer::new(Kind::Control);
        writer.array(2);
        match self {
            Self::Hello { name, modules } => {
                begin(&mut writer, Type::Hello, 2);
                writer.key(FIRST);
                writer.name("name of the sender", name)?;
                writer.key(SECOND);
                writer.list("modules", modules.len(), MODULES_MAX)?;
                modules
                    .iter()
                    .try_for_each(|module| module.write(&mut writer))?;
            }
            Self::Load(load) => {
                writer.uint(Type::Load as u64);
                load.write(&mut writer);
            }
            Self::ModuleReady { digest } => {
                begin(&mut writer, Type::ModuleReady, 1);
                writer.key(FIRST);
                writer.digest(digest);
            }
            Self::Reservation {
                slots,
                horizon,
                probability,
            } => {
                begin(&mut writer, Type::Reservation, 3);
                writer.key(FIRST);
                writer.uint(milli(*slots));
                writer.key(SECOND);
                writer.uint(micros(*horizon));
                writer.key(THIRD);
                writer.uint(milli(probability.clamp(0.0, 1.0)));
            }
            Self::Credits { in_flight_max } => {
                begin(&mut writer, Type::Credits, 1);
                writer.key(FIRST);
                writer.uint((*in_flight_max).into());
            }
            Self::GoAway { reason } => {
                begin(&mut writer, Type::GoAway, 1);
                writer.key(FIRST);
                writer.text(cut(reason, REASON_BYTES_MAX));
            }
            Self::ModuleWanted { digest } => {
                begin(&mut writer, Type::ModuleWanted, 1);
                writer.key(FIRST);
                writer.digest(digest);
            }
            Self::ModuleOffered { digest, len } => {
                begin(&mut writer, Type::ModuleOffered, 2);
                writer.key(FIRST);
                writer.digest(digest);
                writer.key(SECOND);
                write_len(&mut writer, *len)?;
            }
        }
        writer.finish()
    }

    /// Parses the CBOR behind a prefix of [`Kind::Control`].
    pub fn decode(header: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(header);
        reader.pair("control message")?;
        let message_type = reader.one_of("type of control message", &TYPES, |one| one as u64)?;
        let message = Self::read(&mut reader, message_type)?;
        reader.finish()?;
        Ok(message)
    }

    fn read(reader: &mut Reader<'_>, message_type: Type) -> Result<Self, DecodeError> {
        match message_type {
            Type::Hello => reader.map("hello", |reader, map| {
                reader.key(map, FIRST)?;
                let name = reader.name("name of the sender")?;
                reader.key(map, SECOND)?;
                let count = reader.list("modules", MODULES_MAX)?;
                let modules = (0..count)
                    .map(|_| ModuleOffer::read(reader))
                    .collect::<Result<_, _>>()?;
                Ok(Self::Hello { name, modules })
            }),
            Type::Load => LoadReport::read(reader).map(Self::Load),
            Type::ModuleReady => {
                let digest = read_digest(reader, "module ready")?;
                Ok(Self::ModuleReady { digest })
            }
            Type::Reservation => reader.map("reservation", |reader, map| {
                reader.key(map, FIRST)?;
                let slots = reader.milli("slots", SLOTS_MAX)?;
                reader.key(map, SECOND)?;
                let horizon = reader.micros("horizon")?;
                reader.key(map, THIRD)?;
                let probability = reader.milli("probability", 1)?;
                Ok(Self::Reservation {
                    slots,
                    horizon,
                    probability,
                })
            }),
            Type::Credits => reader.map("credits", |reader, map| {
                reader.key(map, FIRST)?;
                let in_flight_max = reader.count("credits", u32::MAX)?;
                Ok(Self::Credits { in_flight_max })
            }),
            Type::GoAway => reader.map("go-away", |reader, map| {
                reader.key(map, FIRST)?;
                let reason = reader.text("reason", REASON_BYTES_MAX)?.to_owned();
                Ok(Self::GoAway { reason })
            }),
            Type::ModuleWanted => {
                let digest = read_digest(reader, "module wanted")?;
                Ok(Self::ModuleWanted { digest })
            }
            Type::ModuleOffered => reader.map("module offered", |reader, map| {
                reader.key(map, FIRST)?;
                let digest = reader.digest("module digest")?;
                reader.key(map, SECOND)?;
                let len = reader.uint("module length", MODULE_BYTES_MAX)?;
                Ok(Self::ModuleOffered { digest, len })
            }),
        }
    }
}

impl ModuleOffer {
    fn write(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.map(3);
        writer.key(FIRST);
        writer.name("name of a module", &self.name)?;
        writer.key(SECOND);
        writer.digest(&self.digest);
        writer.key(THIRD);
        write_len(writer, self.len)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.map("module", |reader, map| {
            reader.key(map, FIRST)?;
            let name = reader.name("name of a module")?;
            reader.key(map, SECOND)?;
            let digest = reader.digest("module digest")?;
            reader.key(map, THIRD)?;
            let len = reader.uint("module length", MODULE_BYTES_MAX)?;
            Ok(Self { name, digest, len })
        })
    }
}

/// Reads the map of a message that holds a digest and nothing else.
fn read_digest(reader: &mut Reader<'_>, name: &'static str) -> Result<Digest, DecodeError> {
    reader.map(name, |reader, map| {
        reader.key(map, FIRST)?;
        reader.digest("module digest")
    })
}

/// Starts the map of a message.
fn begin(writer: &mut Writer, message_type: Type, entries: u64) {
    writer.uint(message_type as u64);
    writer.map(entries);
}

fn write_len(writer: &mut Writer, len: u64) -> Result<(), EncodeError> {
    if len > MODULE_BYTES_MAX {
        return Err(EncodeError::ModuleLen { len });
    }
    writer.uint(len);
    Ok(())
}
