//! What the fuzz targets share: how bytes become decisions, and how they are cut into pieces.
//!
//! Each target is a program of libFuzzer's: bytes in, and an assertion fails or none does. Most
//! judge by a second, naive reading of the same bytes; the rooms' own assertions judge as well,
//! since the targets are built with them. Inputs are kept as readable as they can be: an input of
//! `http` is a request, one of `query` a query, and so on.

/// Bytes taken one after the other; zeros once there are no more.
#[derive(Debug)]
pub struct Feed<'a> {
    bytes: &'a [u8],
}

impl<'a> Feed<'a> {
    /// A feed of all of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// The next `count` bytes, or as many as are left.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(count.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    /// One of several; the choices must not be empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    /// True exactly when no byte is left.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Cuts `bytes` into pieces of 1 to 16 bytes, always in the same way.
pub fn pieces(bytes: &[u8]) -> Vec<&[u8]> {
    let mut dice = bytes
        .iter()
        .fold(bytes.len() as u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        // A linear congruential generator: its high bits are good enough to cut by.
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (piece, behind) = rest.split_at(rest.len().min(1 + (dice >> 28) as usize));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}
