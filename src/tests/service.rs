//! The real binary on loopback: what no pure test can see.
//!
//! Each test starts its own process on port 0, asks it over real sockets, and kills it by its own
//! handle. Nothing leaves this machine. A test that needs a network of its own (every port of
//! 127.0.0.1, port 53, a silent host) runs itself again inside `unshare`; where that is not
//! permitted it says so and passes, unless `OPENPORTS_REQUIRE_ALL` is set. `OPENPORTS_SOAK=1`
//! repeats more often what is a matter of luck.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on says so")]

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
#[path = "service/network.rs"]
mod network;
#[path = "service/operation.rs"]
mod operation;
#[path = "service/page.rs"]
mod page;
#[path = "service/process.rs"]
mod process;
#[path = "service/scans.rs"]
mod scans;
#[path = "service/startup.rs"]
mod startup;
#[path = "service/streams.rs"]
mod streams;
