//! openports: signboard to be written.
pub mod event;
pub mod limits;
pub mod slots;
pub mod target;
pub mod timers;
