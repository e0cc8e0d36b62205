//! Unpacks what DEFLATE has packed (RFC 1951), in the manner of zlib's `puff`: small, not fast.
//!
//! For the page alone, a constant of this binary that a test unpacks: no client's bytes come here.
//! `miniz_oxide` is faster and weighs some 12 KB, more than the packed page; here it is a matter of
//! a client that hardly exists. Whatever the bytes are, it comes to an end, within its bound,
//! and panics at nothing.

/// What `packed` holds; `None` where it is broken, or holds more than `bytes_max`.
pub(super) fn inflate(packed: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let (mut bits, mut out) = (Bits { bytes: packed, at: 0 }, Vec::new());
    loop {
        let is_last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => copy_stored(&mut bits, &mut out, bytes_max)?,
            1 => {
                let (symbols, distances) = fixed_codes();
                copy_coded(&mut bits, &mut out, (&symbols, &distances), bytes_max)?;
            }
            2 => {
                let (symbols, distances) = read_codes(&mut bits)?;
                copy_coded(&mut bits, &mut out, (&symbols, &distances), bytes_max)?;
            }
            _ => return None,
        }
        if is_last {
            return Some(out);
        }
    }
}

/// The lowest bit of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// A number of so many bits, its lowest first.
    fn take(&mut self, count: usize) -> Option<usize> {
        let mut number = 0;
        for place in 0..count {
            let byte = usize::from(*self.bytes.get(self.at / 8)?);
            number |= (byte >> (self.at % 8) & 1) << place;
            self.at += 1;
        }
        Some(number)
    }
}

/// Bits of the longest code.
const CODE_BITS_MAX: usize = 15;

/// A code of Huffman's in its canonical form: by how many symbols have each length.
struct Code {
    counts: [usize; CODE_BITS_MAX + 1],
    /// By length, then by number.
    symbols: Vec<usize>,
}

impl Code {
    /// The code whose symbol `n` has `lengths[n]` bits; 0: it does not come.
    fn new(lengths: &[usize]) -> Self {
        let (mut counts, mut symbols) = ([0; CODE_BITS_MAX + 1], Vec::new());
        for (bits, count) in counts.iter_mut().enumerate().skip(1) {
            let len_before = symbols.len();
            symbols.extend((0..lengths.len()).filter(|symbol| lengths[*symbol] == bits));
            *count = symbols.len() - len_before;
        }
        Self { counts, symbols }
    }

    /// The next symbol.
    fn read(&self, bits: &mut Bits) -> Option<usize> {
        // `first` is the first code of this length, `place` that of its symbol.
        let (mut code, mut first, mut place) = (0, 0, 0);
        for count in &self.counts[1..] {
            code |= bits.take(1)?;
            // Not below `first`: a code that no shorter one is the beginning of.
            let nth = code.checked_sub(first)?;
            if nth < *count {
                return self.symbols.get(place + nth).copied();
            }
            place += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

/// The symbol that ends a block; those below are bytes, those above lengths.
const END: usize = 256;

/// The codes of a block that brings none (RFC 1951 section 3.2.6).
fn fixed_codes() -> (Code, Code) {
    let length = |symbol| match symbol {
        0..=143 => 8,
        144..=255 => 9,
        256..=279 => 7,
        _ => 8,
    };
    let lengths: Vec<usize> = (0..288).map(length).collect();
    (Code::new(&lengths), Code::new(&[5; 30]))
}

/// The codes that a block begins with (RFC 1951 section 3.2.7).
fn read_codes(bits: &mut Bits) -> Option<(Code, Code)> {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let symbols_len = bits.take(5)? + 257;
    let distances_len = bits.take(5)? + 1;
    let mut of_lengths = [0; ORDER.len()];
    for place in &ORDER[..bits.take(4)? + 4] {
        of_lengths[*place] = bits.take(3)?;
    }
    let code = Code::new(&of_lengths);
    let mut lengths: Vec<usize> = Vec::new();
    while lengths.len() < symbols_len + distances_len {
        let (length, times) = match code.read(bits)? {
            16 => (*lengths.last()?, bits.take(2)? + 3),
            17 => (0, bits.take(3)? + 3),
            18 => (0, bits.take(7)? + 11),
            length => (length, 1),
        };
        lengths.resize(lengths.len() + times, length);
    }
    let (symbols, distances) = lengths.split_at(symbols_len);
    (lengths.len() == symbols_len + distances_len)
        .then(|| (Code::new(symbols), Code::new(distances)))
}

/// A block as it is: its length twice, and the bytes (RFC 1951 section 3.2.4).
fn copy_stored(bits: &mut Bits, out: &mut Vec<u8>, bytes_max: usize) -> Option<()> {
    bits.at = bits.at.next_multiple_of(8);
    let (len, inverse) = (bits.take(16)?, bits.take(16)?);
    let from = bits.at / 8;
    let bytes = bits.bytes.get(from..from + len)?;
    if len ^ inverse != 0xffff || out.len() + len > bytes_max {
        return None;
    }
    out.extend_from_slice(bytes);
    bits.at += len * 8;
    Some(())
}

/// Bytes, and copies of what was there before (RFC 1951 section 3.2.5).
fn copy_coded(
    bits: &mut Bits,
    out: &mut Vec<u8>,
    (symbols, distances): (&Code, &Code),
    bytes_max: usize,
) -> Option<()> {
    loop {
        let len = match symbols.read(bits)? {
            END => return Some(()),
            byte if byte < END => {
                out.push(byte as u8);
                0
            }
            285 => 258,
            symbol => number(bits, symbol - END - 1, 4)? + 3,
        };
        if len > 0 {
            let symbol = distances.read(bits)?;
            let distance = number(bits, symbol, 2)? + 1;
            let from = out.len().checked_sub(distance)?;
            // One by one: a copy may reach into itself.
            for at in from..from + len {
                out.push(out[at]);
            }
        }
        if out.len() > bytes_max {
            return None;
        }
    }
}

/// The number that a symbol stands for, with the bits behind it: each `group` of symbols covers
/// twice as many numbers as the one before, but for the first two.
fn number(bits: &mut Bits, symbol: usize, group: usize) -> Option<usize> {
    let extra = (symbol / group).saturating_sub(1);
    let base = if symbol < group { symbol } else { (group + symbol % group) << extra };
    Some(base + bits.take(extra)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use miniz_oxide::deflate::compress_to_vec;

    /// Bytes without sense, but the same ones each time.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 7_u64;
        let step = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..len).map(step).collect()
    }

    #[test]
    fn what_another_has_packed_is_unpacked_to_the_byte() {
        let text = include_bytes!("../openapi.json");
        let repeated = [noise(300), noise(300), vec![b'x'; 700], noise(1)].concat();
        let far = [noise(32_000), noise(32_000)].concat();
        for plain in [&b""[..], b"a", b"aaaaaaaaaaaa", text, &noise(70_000), &repeated, &far] {
            for level in [0, 1, 6, 10] {
                let packed = compress_to_vec(plain, level);
                assert!(inflate(&packed, plain.len()).as_deref() == Some(plain), "level {level}");
                if let Some(less) = plain.len().checked_sub(1) {
                    assert_eq!(inflate(&packed, less), None, "more than is allowed");
                }
            }
        }
    }

    #[test]
    fn what_is_broken_is_nothing_and_no_panic() {
        let packed = compress_to_vec(include_bytes!("../help.txt"), 9);
        for cut in 0..packed.len() {
            assert_eq!(inflate(&packed[..cut], 1 << 16), None, "cut after {cut} bytes");
        }
        for bit in 0..packed.len() * 8 {
            let mut broken = packed.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            if let Some(out) = inflate(&broken, 4000) {
                assert!(out.len() <= 4000);
            }
        }
        for seed in 0..2000 {
            inflate(&noise(2000)[seed % 1900..], 4000);
        }
        for broken in [&[][..], &[7], &[1, 5, 0, 0, 0], &[1, 1, 0, 0xfe, 0xff], &[3], &[0x4b, 4]] {
            assert_eq!(inflate(broken, 10), None, "{broken:?}");
        }
        assert_eq!(inflate(&[3, 0], 0), Some(Vec::new()), "a block of nothing");
    }
}
