//! openports finds the open TCP ports of a host: an HTTP request starts a scan, and one event loop
//! sends the answer.
//!
//! There is one thread and one poller. All decisions are made by pure state machines that touch
//! neither a descriptor nor a clock; the code that touches these is a thin loop that decides
//! nothing. The loop makes its system calls through one trait, [`kernel::Kernel`], so that a
//! simulated kernel can drive loop and core with virtual time and injected faults.
//!
//! # The map, in reading order
//!
//! | module | one line |
//! |---|---|
//! | [`config`] | flags and variables from one table, which also generates `--help` |
//! | [`event_loop`] | the loop: waits, translates events, performs actions, prints |
//! | [`healthcheck`] | the command that checks the health of a running service |
//! | [`sys`] | every system call; errno classified once; the only `unsafe` |
//! | [`kernel`] | the system calls of the loop, behind one trait |
//! | [`core`] | the core: one event in, one action out; jobs, clients, shutdown |
//! | [`conn`] | one HTTP/1.1 connection: bytes in, requests out |
//! | [`batch`] | one command-line run: targets, shards, output |
//! | [`api`] | routes, parameters, negotiation, answers, problems |
//! | [`http`] | framing over httparse; the types of a request and an answer |
//! | [`scan`] | one scan of one address: passes, probes, the outcome of each port |
//! | [`dns`], [`address`] | a stub resolver on the loop; RFC 6724 order of addresses |
//! | [`access`] | which clients may request a scan |
//! | [`policy`] | which addresses may be scanned |
//! | [`budget`] | the one budget of descriptors, and its fair division |
//! | [`cidr`] | networks: a prefix and its length |
//! | [`target_spec`] | the grammar of a target: names, addresses, networks, ranges |
//! | [`host`], [`port_set`] | a host and a set of ports: parsed once, valid from then on |
//! | [`punycode`] | the `xn--` form of international names, for messages |
//! | [`duration`], [`decimal`], [`spelling`] | durations, numbers, suggestions for misspelt words |
//! | [`service_names`] | the usual service of a port |
//! | [`top_ports`] | the ports that are open most often |
//! | [`report`] | counters, log records, `/metrics` |
//! | [`event`] | the interface between event loop and core |
//! | [`listen_address`] | the address of a listener: one notation for flags, log and health check |
//! | [`packet`] | SYNs to send, answers to parse: the packets of a SYN scan |
//! | [`pacer`] | when the next SYN may be sent: rate limits and token buckets |
//! | [`timers`], [`slots`] | ordered deadlines; generational keys |
//! | [`limits`] | every bound with its reason |
//! | [`technique`] | the ways to probe a port |
//! | [`interfaces`] | zones of link-local addresses |
//!
//! Modules import only modules below them in this list, which a test checks.
//!
//! # The loop's contract
//!
//! One tick has these phases, always in this order, each with a bound from [`limits`]:
//!
//! 1. poll until the last [`event::Action::Wait`] deadline (without waiting after a `Yield`, or
//!    while the ready list is not empty)
//! 2. `now`, once, and [`event::Event::Clock`]
//! 3. signals
//! 4. sockets: the events of the poller, then the ready list, because edge-triggered readiness is
//!    reported only once
//! 5. [`event::Event::Tick`]: deadlines, budgets, shutdown
//! 6. accept, only while the core wants connections
//! 7. actions, until the core returns `Yield`, `Wait` or `Exit`; then the engines send the
//!    collected packets, and stderr and stdout are written
//!
//! The loop never blocks before it has received `Wait`. An action whose system call fails comes
//! back as an event in the same flush, and the core then enters a state that does not request the
//! same action again at the same `now`. [`event`] lists everything that crosses the boundary
//! between loop and core.
//!
//! # Invariants of the whole
//!
//! - Each requested port ends in exactly one state, and a local shortage is never such a state.
//! - A deadline that was handled is gone or later than `now`, so the loop cannot spin on it.
//! - A key identifies one socket for ever; a late event is ignored and counted.
//! - Every queue, buffer, loop and retry has a bound, in [`limits`] or beside its use; at capacity,
//!   input is no longer requested, instead of being accepted and dropped.
//! - There are three kinds of errors: an error of the client becomes a status, an error of the
//!   network becomes an outcome that is counted, and an error of this program is an assertion.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_macros,
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::fn_params_excessive_bools
    )
)]

pub mod access;
pub mod address;
pub mod api;
pub mod batch;
pub mod budget;
pub mod cidr;
pub mod config;
pub mod conn;
pub mod core;
pub mod decimal;
pub mod dns;
pub mod duration;
pub mod event;
pub mod event_loop;
pub mod healthcheck;
pub mod host;
pub mod http;
pub mod interfaces;
pub mod kernel;
pub mod limits;
pub mod listen_address;
pub mod pacer;
pub mod packet;
pub mod policy;
pub mod port_set;
pub mod punycode;
pub mod report;
pub mod scan;
pub mod service_names;
pub mod slots;
pub mod spelling;
pub mod sys;
pub mod target_spec;
pub mod technique;
pub mod timers;
pub mod top_ports;
