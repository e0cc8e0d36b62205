//! HTTP/1.x to the letter: RFC 9110 and RFC 9112 as a table of bytes and what must come of them.
//!
//! Each MUST that touches a server is a case with a name, and so is whatever request smuggling is
//! made of. All are played against the real binary, see [`drive`]: whole, byte by byte, split at
//! every place, pipelined and half-closed. `CONFORMANCE=words` plays the cases whose section or
//! name has these words; a fault shows the case as a command to send it by hand.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says what went wrong, and where"
)]

#[path = "conformance/bytes.rs"]
mod bytes;
#[path = "conformance/case.rs"]
mod case;
#[path = "conformance/chunks.rs"]
mod chunks;
#[path = "conformance/codings.rs"]
mod codings;
#[path = "conformance/connection.rs"]
mod connection;
#[path = "simulation/dice.rs"]
#[allow(dead_code, reason = "the simulation uses the rest")]
mod dice;
#[path = "conformance/drive.rs"]
mod drive;
#[path = "conformance/fields.rs"]
mod fields;
#[path = "conformance/framing.rs"]
mod framing;
#[path = "conformance/line.rs"]
mod line;
#[path = "conformance/lines.rs"]
mod lines;
#[path = "conformance/mutations.rs"]
mod mutations;
#[path = "service/process.rs"]
#[allow(dead_code, reason = "the tests of the service use the rest")]
mod process;
#[path = "conformance/reader.rs"]
mod reader;
#[path = "conformance/reference.rs"]
mod reference;
#[path = "conformance/semantics.rs"]
mod semantics;
#[path = "conformance/targets.rs"]
mod targets;
