//! Counts by label, in a fixed number of cells.

/// Counts by label, in the order in which the labels first appeared. A count without a free cell is
/// added to `overflow`. An overflow means that a bound of `limits` is too small; no count is lost.
#[derive(Clone, Debug)]
pub(super) struct Tally<L, const N: usize> {
    cells: [Option<(L, u64)>; N],
    /// The counts that found no free cell.
    pub(super) overflow: u64,
}

impl<L: Copy, const N: usize> Default for Tally<L, N> {
    fn default() -> Self {
        Self { cells: [None; N], overflow: 0 }
    }
}

impl<L: Copy + PartialEq, const N: usize> Tally<L, N> {
    pub(super) fn add(&mut self, label: L) {
        for cell in &mut self.cells {
            match cell {
                Some((known, count)) if *known == label => {
                    *count += 1;
                    return;
                }
                Some(_) => {}
                None => {
                    *cell = Some((label, 1));
                    return;
                }
            }
        }
        self.overflow += 1;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (L, u64)> + '_ {
        self.cells.iter().flatten().copied()
    }
}
