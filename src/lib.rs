//! openports: signboard to be written.
pub mod config;
pub mod duration;
pub mod event;
pub mod http;
pub mod limits;
pub mod policy;
pub mod report;
pub mod slots;
pub mod target;
pub mod timers;
