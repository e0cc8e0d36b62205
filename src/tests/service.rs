//! Tests of the real binary on loopback, which cover what pure tests cannot reach.
//!
//! Each test starts its own process on port 0, sends requests over real sockets, and kills the
//! process through its own handle. No packet leaves this machine. A test that needs its own network
//! (every port of 127.0.0.1, port 53, a silent host) runs itself again inside `unshare`. Where that
//! is not permitted, the test reports this and passes, unless `OPENPORTS_REQUIRE_ALL` is set.
//! `OPENPORTS_SOAK=1` repeats tests that depend on timing more often.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a panic is the failure of a test")]

#[path = "service/access.rs"]
mod access;
#[path = "service/client.rs"]
mod client;
#[path = "service/contract.rs"]
mod contract;
#[path = "service/descriptors.rs"]
mod descriptors;
#[path = "service/faults.rs"]
mod faults;
#[path = "service/forms.rs"]
mod forms;
#[path = "service/http.rs"]
mod http;
#[path = "service/listeners.rs"]
mod listeners;
#[path = "service/names.rs"]
mod names;
#[path = "service/nameserver.rs"]
mod nameserver;
#[path = "service/neighbours.rs"]
mod neighbours;
#[path = "service/network.rs"]
mod network;
#[path = "service/operation.rs"]
mod operation;
#[path = "service/page.rs"]
mod page;
#[path = "service/probes.rs"]
mod probes;
#[path = "service/process.rs"]
mod process;
#[path = "service/scans.rs"]
mod scans;
#[path = "service/startup.rs"]
mod startup;
#[path = "service/streams.rs"]
mod streams;
