//! Splits work over the threads of the caller's rayon pool. Without the feature `rayon` there is one thread.

/// Returns the number of threads in the current pool.
pub(crate) fn available() -> usize {
    #[cfg(feature = "rayon")]
    return rayon::current_num_threads();
    #[cfg(not(feature = "rayon"))]
    1
}

/// Number of 8-bit multiply–accumulates that is worth a thread: some microseconds.
const MACS_PER_THREAD: usize = 1 << 20;

/// Returns the number of threads to use for `macs` multiply–accumulates of codes, at least 1.
pub(crate) fn worth(macs: usize) -> usize {
    available().min(macs / MACS_PER_THREAD).max(1)
}

/// Runs both closures, in parallel if the pool has threads.
#[cfg(feature = "rayon")]
pub(crate) fn join<A: Send, B: Send>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B + Send) -> (A, B) {
    rayon::join(first, second)
}

#[cfg(not(feature = "rayon"))]
pub(crate) fn join<A, B>(first: impl FnOnce() -> A, second: impl FnOnce() -> B) -> (A, B) {
    (first(), second())
}

/// Splits `out` into ranges of whole rows, at most one per element of `scratch`, and calls
/// `task(first_row, rows, scratch)` on each.
pub(crate) fn each_part<T: Send, S: Send>(
    out: &mut [T],
    row_len: usize,
    scratch: &mut [S],
    task: &(impl Fn(usize, &mut [T], &mut S) + Sync),
) {
    fork(0, out, row_len.max(1), scratch, task);
}

fn fork<T: Send, S: Send>(
    row: usize,
    out: &mut [T],
    row_len: usize,
    scratch: &mut [S],
    task: &(impl Fn(usize, &mut [T], &mut S) + Sync),
) {
    let (parts, rows) = (scratch.len(), out.len() / row_len);
    let at = rows * (parts / 2) / parts.max(1);
    if at == 0 {
        let Some(scratch) = scratch.first_mut() else { return };
        return task(row, out, scratch);
    }
    let (first, second) = out.split_at_mut(at * row_len);
    let (first_scratch, second_scratch) = scratch.split_at_mut(parts / 2);
    join(|| fork(row, first, row_len, first_scratch, task), || fork(row + at, second, row_len, second_scratch, task));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_whole_rows_in_order() {
        for (rows, row_len, parts) in [(0, 3, 2), (1, 4, 3), (7, 2, 3), (5, 1, 8), (6, 0, 2)] {
            let mut out = alloc::vec![usize::MAX; rows * row_len];
            let mut calls = alloc::vec![0; parts];
            each_part(&mut out, row_len, &mut calls, &|first, out, calls| {
                out.iter_mut().enumerate().for_each(|(i, out)| *out = first + i / row_len);
                *calls += 1;
            });
            assert!(out.iter().enumerate().all(|(i, &row)| row == i / row_len), "{rows} rows, {parts} parts: {out:?}");
            assert!(calls.iter().all(|&calls| calls <= 1));
        }
    }
}
