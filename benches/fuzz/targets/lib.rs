//! Shared code of the fuzz targets: it turns bytes into decisions, and cuts bytes into pieces.
//!
//! Each target is a libFuzzer program, which gets bytes and fails if an assertion fails. Most
//! targets compare the result with that of a second, naive parser. The debug assertions of the
//! modules are enabled too. Inputs are readable where possible: an input of `http` is a request,
//! and one of `query` a query.

/// A reader that takes bytes one after the other, and returns zeros after the last.
#[derive(Debug)]
pub struct Feed<'a> {
    bytes: &'a [u8],
}

impl<'a> Feed<'a> {
    /// Returns a feed of all of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Takes the next `count` bytes, or as many as are left.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(count.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    /// Takes a byte and returns one of the choices, which must not be empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Cuts `bytes` into pieces of 1 to 16 bytes, always in the same way.
pub fn pieces(bytes: &[u8]) -> Vec<&[u8]> {
    let mut state = bytes
        .iter()
        .fold(bytes.len() as u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        // The high bits of a linear congruential generator are random enough for this.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (piece, behind) = rest.split_at(rest.len().min(1 + (state >> 28) as usize));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}
