//! Threads for what splits its work over the caller's pool.

use crate::program::Result;

/// Runs `f` on this number of threads, the caller's included.
#[cfg(feature = "rayon")]
pub(crate) fn with_threads<T: Send>(threads: usize, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build()?.install(f)
}

#[cfg(not(feature = "rayon"))]
pub(crate) fn with_threads<T>(threads: usize, f: impl FnOnce() -> Result<T>) -> Result<T> {
    if threads == 1 { f() } else { Err("any number of threads but 1 needs `--features rayon`".into()) }
}
