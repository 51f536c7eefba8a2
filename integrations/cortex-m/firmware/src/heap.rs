//! The crate links `alloc`, so Rust wants an allocator. Nothing here calls it: `host check` fails if it is linked.

use core::alloc::{GlobalAlloc, Layout};

struct NoHeap;

// SAFETY: no memory is handed out.
unsafe impl GlobalAlloc for NoHeap {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static HEAP: NoHeap = NoHeap;
