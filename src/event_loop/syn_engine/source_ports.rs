//! The source ports of SYNs. They are reserved one by one when they are needed, all from the block
//! of ports that the filter of the raw sockets lets pass.
//!
//! One source port is enough for all scans, because their probes differ in the address or port of
//! the target. Pings of the same port that are in flight at the same time need a source port each,
//! so that an answer shows to which ping it belongs. The kernel keeps the ports reserved until the
//! process ends.

use crate::event::Shortage;
use crate::kernel::Kernel;
use crate::limits;
use crate::packet::filter::PortBlock;

/// A source port, and its offset in the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourcePort {
    pub(super) number: u16,
    pub(super) offset: u8,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct SourcePorts {
    /// The block of the first reserved port; `None` before a port is reserved.
    block: Option<PortBlock>,
    reserved: Vec<SourcePort>,
    /// The index in `reserved` (modulo its length) of the port that is tried first. It advances
    /// with each SYN, so that a late answer to a ping that was given up is seldom assigned to a
    /// later ping.
    next: usize,
}

impl SourcePorts {
    /// Returns the block. The first call reserves a port that the kernel chooses, and its block is
    /// used from then on.
    pub(super) fn reserve_first(
        &mut self,
        kernel: &mut impl Kernel,
    ) -> Result<PortBlock, Shortage> {
        if let Some(block) = self.block {
            return Ok(block);
        }
        let number = kernel.reserve_port(0)?;
        let block = PortBlock::around(number);
        self.insert(block, number);
        Ok(*self.block.insert(block))
    }

    /// Returns the result of `try_port` for the first reserved port for which it is not `None`. If
    /// there is none, one more port of the block is reserved.
    pub(super) fn choose<T>(
        &mut self,
        kernel: &mut impl Kernel,
        try_port: impl Fn(SourcePort) -> Option<T>,
    ) -> Result<T, Shortage> {
        self.next += 1;
        let len = self.reserved.len();
        let mut candidates = (0..len).map(|tried| self.reserved[(self.next + tried) % len]);
        if let Some(chosen) = candidates.find_map(&try_port) {
            return Ok(chosen);
        }
        let block = self.block.ok_or(Shortage::SourcePorts)?;
        if len >= limits::SYN_SOURCE_PORTS_MAX {
            return Err(Shortage::SourcePorts);
        }
        let is_new = |number: &u16| !self.reserved.iter().any(|port| port.number == *number);
        let new: Vec<u16> = block.ports().filter(|number| *number > 0).filter(is_new).collect();
        for number in new {
            match kernel.reserve_port(number) {
                Ok(number) => {
                    let port = self.insert(block, number);
                    return port.and_then(try_port).ok_or(Shortage::SourcePorts);
                }
                // Another program has this port.
                Err(Shortage::SourcePorts) => {}
                Err(shortage) => return Err(shortage),
            }
        }
        Err(Shortage::SourcePorts)
    }

    /// The offset of a port in the block; `None` if it is in another block.
    pub(super) fn offset(&self, number: u16) -> Option<u8> {
        self.block?.offset(number)
    }

    /// The port at an offset in the block. A port must be reserved.
    pub(super) fn number(&self, offset: u8) -> u16 {
        match self.block {
            Some(block) => block.port(offset),
            None => unreachable!("a SYN in flight has a reserved port"),
        }
    }

    fn insert(&mut self, block: PortBlock, number: u16) -> Option<SourcePort> {
        let port = SourcePort { number, offset: block.offset(number)? };
        self.reserved.push(port);
        Some(port)
    }
}
