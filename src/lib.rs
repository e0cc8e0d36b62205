//! openports: signboard to be written.
pub mod address;
pub mod dns;
pub mod event;
pub mod http;
pub mod limits;
pub mod slots;
pub mod target;
pub mod timers;
