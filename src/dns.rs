//! Names to addresses: so far the message codec.

pub mod wire;
