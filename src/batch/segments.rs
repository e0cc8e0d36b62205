//! Sorted, disjoint segments of addresses, each with the ports that are scanned there.
//!
//! Networks, ranges and addresses may overlap in any way. [`disjoint`] turns them into segments
//! that do not overlap, so that every address is in one segment at most and its ports are the union
//! of the requested ports. A segment takes the same memory whether it has one address or all of
//! them. Addresses are numbers here: `u32` for IPv4, `u128` for IPv6. The functions are pure;
//! `list` and `targets` call them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Consecutive addresses with the same ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSegment<A> {
    /// The lowest address.
    pub first: A,
    /// The highest address.
    pub last: A,
    /// The number that the list of targets assigned to the set of ports.
    pub ports: u32,
}

impl<A: Copy + Into<u128>> AddressSegment<A> {
    /// The number of addresses.
    pub fn len(&self) -> u128 {
        // The length is at most 2^32: longer segments are refused when they are read, and merging
        // stops there.
        (self.last.into() - self.first.into()).saturating_add(1)
    }

    /// Always false: a segment has at least one address.
    pub const fn is_empty(&self) -> bool {
        false
    }
}

/// Makes the segments disjoint and sorts them. Where segments overlap, `union` combines their sets
/// of ports.
pub fn disjoint<A>(
    mut items: Vec<AddressSegment<A>>,
    mut union: impl FnMut(&[u32]) -> u32,
) -> Vec<AddressSegment<A>>
where
    A: Copy + Ord + Into<u128> + TryFrom<u128>,
{
    items.sort_unstable_by_key(|item| (item.first, item.ports));
    let mut sorted: Vec<AddressSegment<A>> = Vec::new();
    // For each set of ports that is requested at `at`, the last address.
    let mut active: BTreeMap<u32, u128> = BTreeMap::new();
    let mut ports = Vec::new();
    let mut items = items.into_iter().peekable();
    let mut at = 0_u128;
    loop {
        if active.is_empty() {
            match items.peek() {
                Some(item) => at = item.first.into(),
                None => break,
            }
        }
        while let Some(item) = items.next_if(|item| item.first.into() <= at) {
            let last = active.entry(item.ports).or_default();
            *last = (*last).max(item.last.into());
        }
        let next = items.peek().map(|item| item.first.into() - 1);
        let end = active.values().copied().chain(next).min().unwrap_or(at);
        assert!(end >= at, "a segment has an address");
        ports.clear();
        ports.extend(active.keys());
        push(&mut sorted, at..=end, union(&ports));
        active.retain(|_, last| *last > end);
        // After the highest address no set is active, and `at` is not used any more.
        at = end.wrapping_add(1);
    }
    sorted.shrink_to_fit();
    debug_assert!(sorted.windows(2).all(|pair| pair[0].last < pair[1].first), "no two overlap");
    sorted
}

/// Removes the addresses of `holes`, which are disjoint and sorted, from such segments.
pub fn subtract<A>(
    segments: &[AddressSegment<A>],
    holes: &[AddressSegment<A>],
) -> Vec<AddressSegment<A>>
where
    A: Copy + Ord + Into<u128> + TryFrom<u128>,
{
    let mut left = Vec::new();
    let mut holes = holes.iter().peekable();
    for segment in segments {
        // The lowest address that was not processed yet; `None` after the highest possible address.
        let (mut at, last) = (Some(segment.first.into()), segment.last.into());
        while holes.next_if(|hole| hole.last.into() < segment.first.into()).is_some() {}
        while let Some(hole) = holes.peek()
            && hole.first.into() <= last
        {
            if let Some(at) = at
                && hole.first.into() > at
            {
                push(&mut left, at..=hole.first.into() - 1, segment.ports);
            }
            at = hole.last.into().checked_add(1);
            if hole.last.into() >= last {
                // The same hole may extend into the next segment.
                break;
            }
            holes.next();
        }
        if let Some(at) = at
            && at <= last
        {
            push(&mut left, at..=last, segment.ports);
        }
    }
    left
}

/// Whether an address is in one of the disjoint and sorted segments.
pub fn contains<A: Copy + Ord>(segments: &[AddressSegment<A>], address: A) -> bool {
    let behind = segments.partition_point(|segment| segment.last < address);
    segments.get(behind).is_some_and(|segment| segment.first <= address)
}

/// Appends a segment, or extends the last one if both are adjacent and have the same ports.
fn push<A>(segments: &mut Vec<AddressSegment<A>>, range: RangeInclusive<u128>, ports: u32)
where
    A: Copy + Into<u128> + TryFrom<u128>,
{
    let first = *range.start();
    let (Ok(first_address), Ok(last)) = (A::try_from(first), A::try_from(*range.end())) else {
        unreachable!("the ends of a segment are addresses of its family");
    };
    match segments.last_mut() {
        Some(before)
            if before.ports == ports
                && before.last.into().checked_add(1) == Some(first)
                && before.len() < LEN_MAX =>
        {
            before.last = last;
        }
        Some(_) | None => segments.push(AddressSegment { first: first_address, last, ports }),
    }
}

/// Adjacent segments are not merged beyond this length, so that the number of addresses of a
/// segment, and of all segments together, stays within bounds that are easy to check.
const LEN_MAX: u128 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(first: u32, last: u32, ports: u32) -> AddressSegment<u32> {
        AddressSegment { first, last, ports }
    }

    /// A set of ports is a bit mask here, so a union is a bitwise OR.
    fn any_of(ports: &[u32]) -> u32 {
        ports.iter().fold(0, |all, ports| all | ports)
    }

    fn check(items: &[(u32, u32, u32)], expected: &[(u32, u32, u32)]) {
        let items = items.iter().map(|(first, last, ports)| segment(*first, *last, *ports));
        let found = disjoint(items.collect(), any_of);
        let found: Vec<_> = found.iter().map(|it| (it.first, it.last, it.ports)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn overlapping_segments_are_cut_where_their_ports_change() {
        check(&[], &[]);
        check(&[(5, 5, 1), (5, 5, 1)], &[(5, 5, 1)]);
        check(&[(1, 9, 1), (10, 20, 1)], &[(1, 20, 1)]);
        check(&[(1, 9, 1), (10, 20, 2)], &[(1, 9, 1), (10, 20, 2)]);
        check(&[(1, 20, 1), (5, 9, 2)], &[(1, 4, 1), (5, 9, 3), (10, 20, 1)]);
        check(&[(1, 9, 1), (5, 20, 2)], &[(1, 4, 1), (5, 9, 3), (10, 20, 2)]);
        check(&[(1, 9, 1), (9, 9, 2), (9, 12, 4)], &[(1, 8, 1), (9, 9, 7), (10, 12, 4)]);
        check(&[(0, u32::MAX, 1), (7, 7, 1)], &[(0, u32::MAX, 1)]);
        let top = u32::MAX;
        check(&[(top, top, 2), (0, top, 1)], &[(0, top - 1, 1), (top, top, 3)]);
    }

    #[test]
    fn the_highest_address_of_all_is_an_address() {
        let all = AddressSegment { first: 0_u128, last: u128::MAX, ports: 1 };
        let top = AddressSegment { first: u128::MAX, last: u128::MAX, ports: 2 };
        let found = disjoint(vec![all, top], any_of);
        assert_eq!(found.last(), Some(&AddressSegment { ports: 3, ..top }));
        assert_eq!(subtract(&[top], &[all]), []);
    }

    /// Compares every arrangement of a few small segments with a table of all addresses.
    #[test]
    fn each_address_keeps_exactly_its_requested_ports() {
        let mut seed = 1_u64;
        let mut dice = |sides: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((seed >> 33) % sides) as u32
        };
        for _ in 0..3000 {
            let mut lay = |count| -> Vec<AddressSegment<u32>> {
                (0..count)
                    .map(|_| {
                        let (first, len) = (dice(20), dice(8));
                        segment(first, first + len, 1 << dice(3))
                    })
                    .collect()
            };
            let (items, holes) = (lay(6), lay(3));
            let table = |items: &[AddressSegment<u32>], at: u32| {
                let here = items.iter().filter(|it| (it.first..=it.last).contains(&at));
                here.fold(0, |ports, it| ports | it.ports)
            };
            let (found, gone) = (disjoint(items.clone(), any_of), disjoint(holes.clone(), any_of));
            let left = subtract(&found, &gone);
            for at in 0..40 {
                assert_eq!(table(&found, at), table(&items, at), "{items:?} at {at}");
                assert_eq!(contains(&found, at), table(&items, at) != 0, "{items:?} at {at}");
                let expected = if table(&holes, at) == 0 { table(&items, at) } else { 0 };
                assert_eq!(table(&left, at), expected, "{items:?} without {holes:?} at {at}");
            }
        }
    }
}
