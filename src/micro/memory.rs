//! The memory of a run, and the parts of it that a step borrows.

use super::format::Region;

/// The memory that the steps of a run share.
pub(super) struct Memory<'a> {
    pub(super) model: &'a [u8],
    pub(super) input: &'a [u8],
    pub(super) output: &'a mut [u8],
    pub(super) arena: &'a mut [u8],
}

/// What a step may read while it writes elsewhere.
pub(super) struct Reads<'m> {
    model: &'m [u8],
    input: &'m [u8],
    output: &'m [u8],
    /// The arena before, between and behind the regions that are written, with their offsets.
    gaps: [(usize, &'m [u8]); 3],
}

/// What a step borrows: memory to read, its output, its scratch.
pub(super) type Borrowed<'m> = (Reads<'m>, &'m mut [u8], &'m mut [u8]);

impl Memory<'_> {
    /// Borrows an output and scratch, which is in the arena or empty, and the rest to read. `None` for regions that do not
    /// fit, which [`RegionCheck`](super::format::RegionCheck) has ruled out.
    pub(super) fn borrow(&mut self, y: Region, scratch: Region) -> Option<Borrowed<'_>> {
        let in_output = y.at == Region::OUTPUT;
        let range = |region: Region, none: bool| if none { 0..0 } else { region.range() };
        let (y_range, scratch) = (range(y, in_output), range(scratch, scratch.len == 0));
        let swapped = scratch.start < y_range.start;
        let (first, second) = if swapped { (scratch, y_range) } else { (y_range, scratch) };
        // An empty region lies anywhere.
        let second = second.start.max(first.end)..second.end.max(first.end);
        let (before, rest) = self.arena.split_at_mut_checked(first.start)?;
        let (a, rest) = rest.split_at_mut_checked(first.len())?;
        let (between, rest) = rest.split_at_mut_checked(second.start - first.end)?;
        let (b, behind) = rest.split_at_mut_checked(second.len())?;
        let (in_arena, scratch) = if swapped { (b, a) } else { (a, b) };
        let (output, y): (&[u8], &mut [u8]) = match in_output {
            true => (&[], &mut *self.output),
            false => (&*self.output, in_arena),
        };
        let gaps = [(0, &*before), (first.end, &*between), (second.end, &*behind)];
        Some((Reads { model: self.model, input: self.input, output, gaps }, y, scratch))
    }
}

impl<'m> Reads<'m> {
    /// The bytes of a region. `None` if it does not fit.
    pub(super) fn get(&self, region: Region) -> Option<&'m [u8]> {
        let range = region.range();
        match region.at {
            _ if region.len() == 0 => Some(&[]),
            Region::INPUT => Some(self.input),
            Region::OUTPUT => Some(self.output),
            at if at >= Region::MODEL => self.model.get(range),
            _ => self.gaps.iter().find_map(|(start, bytes)| {
                let at = range.start.checked_sub(*start)?;
                bytes.get(at..at.checked_add(region.len())?)
            }),
        }
    }
}
