//! openports finds a host's open TCP ports: one HTTP request asks, one event loop answers.
//!
//! One thread, one poller. Everything that decides is a pure state machine that touches neither a
//! descriptor nor a clock; everything that touches them is a thin shell that decides nothing. A
//! simulator can so drive the whole service with virtual time and injected faults.
//!
//! # The map, in reading order
//!
//! | room | one line |
//! |---|---|
//! | [`config`] | flags and variables from one table, so that `--help` cannot drift |
//! | [`server`] | the loop: waits, translates events, performs actions, prints |
//! | [`healthcheck`] | the command that asks a running service whether it is well |
//! | [`sys`] | every system call; errno classified once; the only `unsafe` |
//! | [`service`] | the core: one event in, one action out; jobs, clients, drain |
//! | [`conn`] | one HTTP/1.1 connection: bytes in, requests out |
//! | [`batch`] | one use from the shell: targets, shards, what is printed |
//! | [`api`] | routes, parameters, negotiation, answers, problems |
//! | [`http`] | framing over httparse; the words of a request and an answer |
//! | [`scan`] | one scan of one address: passes, probes, the outcome of each port |
//! | [`dns`], [`address`] | a stub resolver on the loop; RFC 6724 order of addresses |
//! | [`policy`] | which targets and clients are let in |
//! | [`budget`] | the one budget of descriptors, and its fair division |
//! | [`target`], [`duration`], [`spelling`] | hosts, sets of ports, times, "did you mean" |
//! | [`names`] | what is usually behind a port |
//! | [`report`] | counters, log records, `/metrics` |
//! | [`event`] | the words between shell and core |
//! | [`timers`], [`slots`] | ordered deadlines; generational keys |
//! | [`limits`] | every bound with its reason |
//!
//! Imports point only down this list; a test holds it to that.
//!
//! # The loop's contract
//!
//! One turn, always in this order, each phase with a budget from [`limits`]:
//!
//! 1. poll until the last [`event::Action::Wait`] deadline (not at all after a `Yield`, or while
//!    readiness is remembered)
//! 2. `now`, once
//! 3. signals
//! 4. sockets: what the poller told, then the ready list, since edge-triggered readiness is told
//!    once; then stdout, where a use from the shell prints
//! 5. [`event::Event::Tick`]: deadlines, budgets, drain
//! 6. accept, only while the core wants connections
//! 7. actions, until the core says `Yield`, `Wait` or `Exit`
//!
//! The shell never blocks before it has seen `Wait`. An action whose system call fails comes back
//! as an event in the same drain, and the core answers it with a state that does not ask for the
//! same thing again at the same `now`.
//!
//! # Invariants of the whole
//!
//! - Each port asked for ends in exactly one state, and a shortage of ours is none of them.
//! - A deadline that was handled is gone or later than `now`: the loop cannot spin on it.
//! - A key names one socket for ever; an event that comes late is nobody's.
//! - Every queue, buffer, loop and retry has a bound in [`limits`]; at capacity we stop asking.
//! - Three kinds of error, three treatments: the client's is a status, the world's an outcome
//!   that is counted, ours an assertion.

pub mod address;
pub mod api;
pub mod batch;
pub mod budget;
pub mod config;
pub mod conn;
pub mod dns;
pub mod duration;
pub mod event;
pub mod healthcheck;
pub mod http;
pub mod limits;
pub mod names;
pub mod policy;
pub mod report;
pub mod scan;
pub mod server;
pub mod service;
pub mod slots;
pub mod spelling;
pub mod sys;
pub mod target;
pub mod timers;
