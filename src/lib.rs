//! openports: signboard to be written.
pub mod api;
pub mod budget;
pub mod config;
pub mod duration;
pub mod conn;
pub mod event;
pub mod http;
pub mod limits;
pub mod policy;
pub mod report;
pub mod scan;
pub mod slots;
pub mod spelling;
pub mod target;
pub mod timers;
