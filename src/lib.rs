//! openports: signboard to be written.
pub mod budget;
pub mod event;
pub mod http;
pub mod limits;
pub mod scan;
pub mod slots;
pub mod target;
pub mod timers;
