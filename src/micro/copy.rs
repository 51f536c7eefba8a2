//! Copies: operators that move elements, and functions of one tensor by a table.

use alloc::vec::Vec;

use super::format::{Access, Fields, Region};
use super::memory::Memory;

/// A loop: its length, and how far a step moves in the input and in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loop {
    pub(crate) count: usize,
    pub(crate) strides: [i32; 2],
}

impl Default for Loop {
    fn default() -> Self {
        Self { count: 1, strides: [0; 2] }
    }
}

const LOOPS: usize = 5;

/// Copies elements by nested loops, the last one innermost: `y[y_at] = table[x[x_at]]`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StridedCopy {
    pub(crate) x: Region,
    pub(crate) y: Region,
    /// 256 codes, or empty if elements are copied as they are.
    pub(crate) table: Region,
    /// Where the first element is read and written.
    pub(crate) first: [usize; 2],
    pub(crate) loops: [Loop; LOOPS],
    /// What the output is filled with before: a code, or 256 for nothing.
    pub(crate) fill: u32,
}

impl StridedCopy {
    /// Fills nothing.
    pub(crate) const KEEP: u32 = 256;

    /// The loops that read `starts` in order and write runs of `run` elements one after the other. `None` if there are
    /// more than fit.
    pub(crate) fn of_runs(starts: &[u32], run: usize) -> Option<Self> {
        let mut loops = Vec::from([Loop { count: run, strides: [1, 1] }]);
        let (mut starts, mut len) = (starts.to_vec(), run);
        while starts.len() > 1 {
            let stride = i64::from(starts[1]) - i64::from(starts[0]);
            let regular = |pair: &[u32]| i64::from(pair[1]) - i64::from(pair[0]) == stride;
            // The longest run of equal strides that divides all of them.
            let most = 1 + starts.windows(2).take_while(|pair| regular(pair)).count();
            let is_count = |count: &usize| {
                starts.len().is_multiple_of(*count) && starts.chunks(*count).all(|run| run.windows(2).all(regular))
            };
            let count = (2..=most).rev().find(is_count)?;
            loops.push(Loop { count, strides: [i32::try_from(stride).ok()?, i32::try_from(len).ok()?] });
            starts = starts.into_iter().step_by(count).collect();
            len *= count;
        }
        let first = [*starts.first()? as usize, 0];
        Some(Self { first, loops: Self::nested(loops)?, fill: Self::KEEP, ..Self::default() })
    }

    /// Loops from the innermost one outwards, without those of one round.
    fn nested(mut loops: Vec<Loop>) -> Option<[Loop; LOOPS]> {
        loops.retain(|each| each.count != 1);
        let mut nested = [Loop::default(); LOOPS];
        let unused = LOOPS.checked_sub(loops.len())?;
        nested[unused..].iter_mut().zip(loops.iter().rev()).for_each(|(to, each)| *to = *each);
        Some(nested)
    }

    /// Copies the rows of a matrix, `[rows, len]`, to rows that are `stride` apart, from `first` on.
    pub(crate) fn of_rows([rows, len]: [usize; 2], stride: usize, first: usize) -> Option<Self> {
        let strides = [i32::try_from(len).ok()?, i32::try_from(stride).ok()?];
        let loops = Vec::from([Loop { count: len, strides: [1, 1] }, Loop { count: rows, strides }]);
        Some(Self { first: [0, first], loops: Self::nested(loops)?, fill: Self::KEEP, ..Self::default() })
    }

    pub(super) fn fields(&mut self, f: &mut impl Fields) {
        f.region(&mut self.x, Access::Read);
        f.region(&mut self.y, Access::Write);
        f.region(&mut self.table, Access::Read);
        self.first.iter_mut().for_each(|first| f.size(first));
        for Loop { count, strides } in &mut self.loops {
            f.size(count);
            strides.iter_mut().for_each(|stride| f.int(stride));
        }
        f.word(&mut self.fill);
    }

    pub(super) fn is_valid(&self) -> bool {
        let lens = [self.x.len(), self.y.len()];
        // No element is written twice, so that the time is bounded by the memory.
        let total = self.loops.iter().try_fold(1usize, |total, each| total.checked_mul(each.count));
        let fits = |side: usize| {
            let (mut least, mut greatest) = (self.first[side] as i64, self.first[side] as i64);
            for each in &self.loops {
                let reach = (each.count as i64 - 1) * i64::from(each.strides[side]);
                least = least.saturating_add(reach.min(0));
                greatest = greatest.saturating_add(reach.max(0));
            }
            least >= 0 && greatest < lens[side] as i64
        };
        total.is_some_and(|total| (1..=self.y.len()).contains(&total))
            && fits(0)
            && fits(1)
            && matches!(self.table.len(), 0 | 256)
            && self.fill <= Self::KEEP
    }

    pub(super) fn run(&self, memory: &mut Memory<'_>) -> Option<()> {
        let (reads, y, _) = memory.borrow(self.y, Region::default())?;
        let x = reads.get(self.x)?;
        let table = <&[u8; 256]>::try_from(reads.get(self.table)?).ok();
        if let Ok(code) = u8::try_from(self.fill) {
            y.fill(code);
        }
        let [outer @ .., inner] = &self.loops;
        let [mut from, mut to] = self.first;
        let mut rounds = [0; LOOPS - 1];
        let moved =
            |at: usize, stride: i32, times: isize| at.wrapping_add_signed((stride as isize).wrapping_mul(times));
        loop {
            match (table, inner.strides) {
                (None, [1, 1]) => y.get_mut(to..to + inner.count)?.copy_from_slice(x.get(from..from + inner.count)?),
                (table, [x_stride, y_stride]) => {
                    for i in 0..inner.count {
                        let code = *x.get(moved(from, x_stride, i as isize))?;
                        *y.get_mut(moved(to, y_stride, i as isize))? =
                            table.map_or(code, |table| table[usize::from(code)]);
                    }
                }
            }
            // Like an odometer: the innermost loop that is not at its end goes on, those within it start again.
            let mut level = outer.len();
            loop {
                let Some(next) = level.checked_sub(1) else { return Some(()) };
                level = next;
                let (each, round) = (&outer[level], &mut rounds[level]);
                *round += 1;
                let back = *round == each.count;
                // To the next element, or from the last one to the first.
                let times = if back { 1 - each.count as isize } else { 1 };
                (from, to) = (moved(from, each.strides[0], times), moved(to, each.strides[1], times));
                if !back {
                    break;
                }
                *round = 0;
            }
        }
    }
}
