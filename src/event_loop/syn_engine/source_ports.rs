//! The source ports of SYNs: reserved one by one, all in one block that the filter lets pass.
//!
//! One port is enough for all scans, since their probes differ in address or port. Pings of one
//! port that are in flight together need one each, so that an answer shows to which ping it
//! belongs.

use crate::event::Shortage;
use crate::kernel::Kernel;
use crate::limits;
use crate::packet::filter::PortBlock;

/// A source port, and its place in the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourcePort {
    pub(super) number: u16,
    pub(super) place: u8,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct SourcePorts {
    /// Known once the first port is reserved.
    block: Option<PortBlock>,
    reserved: Vec<SourcePort>,
    /// The index in `reserved` that is tried first: each port has its turn, so that a late answer
    /// to a ping that was given up is seldom taken for that of a later one.
    next: usize,
}

impl SourcePorts {
    /// The block; the first call reserves a port of the kernel's choice.
    pub(super) fn open(&mut self, kernel: &mut impl Kernel) -> Result<PortBlock, Shortage> {
        if let Some(block) = self.block {
            return Ok(block);
        }
        let number = kernel.reserve_port(0)?;
        let block = PortBlock::around(number);
        self.insert(block, number);
        Ok(*self.block.insert(block))
    }

    /// What `take` makes of the first port that is free for it; one more is reserved if there is
    /// none.
    pub(super) fn choose<T>(
        &mut self,
        kernel: &mut impl Kernel,
        take: impl Fn(SourcePort) -> Option<T>,
    ) -> Result<T, Shortage> {
        self.next += 1;
        let len = self.reserved.len();
        let mut turns = (0..len).map(|tried| self.reserved[(self.next + tried) % len]);
        if let Some(taken) = turns.find_map(&take) {
            return Ok(taken);
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
                    return port.and_then(take).ok_or(Shortage::SourcePorts);
                }
                // Another program has it.
                Err(Shortage::SourcePorts) => {}
                Err(shortage) => return Err(shortage),
            }
        }
        Err(Shortage::SourcePorts)
    }

    /// The place of a port of the block.
    pub(super) fn place(&self, number: u16) -> Option<u8> {
        self.block?.place(number)
    }

    /// The port at a place.
    pub(super) fn number(&self, place: u8) -> Option<u16> {
        Some(self.block?.port(place))
    }

    fn insert(&mut self, block: PortBlock, number: u16) -> Option<SourcePort> {
        let port = SourcePort { number, place: block.place(number)? };
        self.reserved.push(port);
        Some(port)
    }
}
