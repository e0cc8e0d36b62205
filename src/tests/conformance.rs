//! HTTP/1.x conformance: RFC 9110 and RFC 9112 as a table of requests and expected answers.
//!
//! Each MUST that applies to a server is a named case, and so is each known technique of request
//! smuggling. The driver sends all cases to the real binary, see [`drive`]: in one piece, byte by
//! byte, split at every position, pipelined and half-closed. `CONFORMANCE=words` selects the cases
//! whose section or name contains these words. A failure prints a shell command that sends the
//! case.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a panic or a printed line is the report of a test"
)]

#[path = "conformance/bytes.rs"]
mod bytes;
#[path = "conformance/case.rs"]
mod case;
#[path = "conformance/chunks.rs"]
mod chunks;
#[path = "conformance/client.rs"]
mod client;
#[path = "conformance/codings.rs"]
mod codings;
#[path = "conformance/connection.rs"]
mod connection;
#[path = "conformance/drive.rs"]
mod drive;
#[path = "conformance/fields.rs"]
mod fields;
#[path = "conformance/framing.rs"]
mod framing;
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
#[path = "simulation/rng.rs"]
#[allow(dead_code, reason = "the simulation uses the rest")]
mod rng;
#[path = "conformance/semantics.rs"]
mod semantics;
#[path = "conformance/targets.rs"]
mod targets;
