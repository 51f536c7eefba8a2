//! Work that is split over the threads of the pool that it is called in, with the feature `rayon`. Without it there is
//! one.

/// The threads that there are.
pub(crate) fn available() -> usize {
    #[cfg(feature = "rayon")]
    return rayon::current_num_threads();
    #[cfg(not(feature = "rayon"))]
    1
}

/// As many products of codes as take some microseconds: less is not worth a thread.
const WORTH_A_THREAD: usize = 1 << 20;

/// The threads that are worth it, of those that there are, for what takes as long as so many products of codes.
pub(crate) fn worth(products: usize) -> usize {
    available().min(products / WORTH_A_THREAD).max(1)
}

/// Both, side by side where there are threads.
#[cfg(feature = "rayon")]
pub(crate) fn join<A: Send, B: Send>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B + Send) -> (A, B) {
    rayon::join(first, second)
}

#[cfg(not(feature = "rayon"))]
pub(crate) fn join<A, B>(first: impl FnOnce() -> A, second: impl FnOnce() -> B) -> (A, B) {
    (first(), second())
}

/// Cuts `out` into parts of whole rows, at most one for each of `spaces`, which are memory of theirs, and calls `task`
/// on each: with the number of its first row, its outputs and its space.
pub(crate) fn each_part<T: Send, S: Send>(
    out: &mut [T],
    row_len: usize,
    spaces: &mut [S],
    task: &(impl Fn(usize, &mut [T], &mut S) + Sync),
) {
    fork(0, out, row_len.max(1), spaces, task);
}

fn fork<T: Send, S: Send>(
    row: usize,
    out: &mut [T],
    row_len: usize,
    spaces: &mut [S],
    task: &(impl Fn(usize, &mut [T], &mut S) + Sync),
) {
    let (parts, rows) = (spaces.len(), out.len() / row_len);
    let at = rows * (parts / 2) / parts.max(1);
    if at == 0 {
        let Some(space) = spaces.first_mut() else { return };
        return task(row, out, space);
    }
    let (first, second) = out.split_at_mut(at * row_len);
    let (first_spaces, second_spaces) = spaces.split_at_mut(parts / 2);
    join(|| fork(row, first, row_len, first_spaces, task), || fork(row + at, second, row_len, second_spaces, task));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_whole_rows_in_order() {
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
