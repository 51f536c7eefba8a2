//! No kernel reads or writes past its operands: every allocation ends, or starts, at a page that cannot be accessed. Unlike
//! sanitizers, this sees assembly.

#![cfg(all(feature = "std", target_os = "linux", target_pointer_width = "64"))]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_void;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use ndarray::{Array, Axis, IntoDimension, Ix2};
use ndarray_quant::block::{BlockFormat, BlockTensor, IntegerBlocks, MXFP4, MXFP8E4M3, NF4, NVFP4, ggml};
use ndarray_quant::fingerprint::fingerprint;
use ndarray_quant::gemm::Int8;
use ndarray_quant::graph::GraphBuilder;
use ndarray_quant::half::{HalfCast, HalfFloat, Overflow, bf16, f16};
use ndarray_quant::minifloat::{F4E2M1FN, F6E3M2FN, F8E4M3FN, F8E5M2, Minifloat, MinifloatParams};
use ndarray_quant::nn::{BinaryConv2d, BinaryLinear, HalfLinear, LinearNBits, Padding, Window};
use ndarray_quant::{BinaryTensor, Element, Granularity, I4, QTensor, Result, Scheme, Ternary, U4};

/// A multiple of the page size of every machine of the target.
const PAGE: usize = if cfg!(target_arch = "x86_64") { 1 << 12 } else { 1 << 16 };

/// Addresses for all allocations of a test: none is used twice, so that memory that was freed cannot be accessed either.
const REGION: usize = 1 << 36;

#[allow(unsafe_code, reason = "the operating system has no safe interface to pages")]
mod os {
    use std::ffi::{c_int, c_void};

    unsafe extern "C" {
        pub(super) fn mmap(
            at: *mut c_void,
            len: usize,
            protection: c_int,
            flags: c_int,
            file: c_int,
            offset: i64,
        ) -> *mut c_void;
        pub(super) fn write(file: c_int, from: *const c_void, len: usize) -> isize;
    }

    pub(super) const NONE: c_int = 0;
    pub(super) const READ_WRITE: c_int = 3;
    /// Private, anonymous, without a reserve of swap.
    pub(super) const NEW: c_int = 0x2 | 0x20 | 0x4000;
    pub(super) const FIXED: c_int = 0x10;
}

/// Where guarded allocations touch their guard page. Others have none.
static SIDE: AtomicU8 = AtomicU8::new(0);
const END: u8 = 1;
const START: u8 = 2;

/// The first address of the region and the next one that is free, or 0 before the first guarded allocation.
static REGION_START: OnceLock<usize> = OnceLock::new();
static NEXT: AtomicUsize = AtomicUsize::new(0);

struct Guarded;

impl Guarded {
    /// Gives pages of the region another protection, and new content.
    fn map(at: usize, len: usize, protection: i32) {
        // SAFETY: the pages are those of one allocation in the region, of which nobody else has a reference.
        #[allow(unsafe_code, reason = "the operating system has no safe interface to pages")]
        let mapped = unsafe { os::mmap(at as *mut c_void, len, protection, os::NEW | os::FIXED, -1, 0) };
        if mapped as usize != at {
            std::process::abort();
        }
    }

    fn region() -> usize {
        *REGION_START.get_or_init(|| {
            // SAFETY: new addresses, which nobody has a reference to.
            #[allow(unsafe_code, reason = "the operating system has no safe interface to pages")]
            let start = unsafe { os::mmap(std::ptr::null_mut(), REGION, os::NONE, os::NEW, -1, 0) };
            if start as isize == -1 {
                std::process::abort();
            }
            // The first page is the guard in front of the first allocation, and aligned for all.
            start as usize
        })
    }

    /// Returns the bytes of the pages of an allocation.
    fn pages(layout: Layout) -> usize {
        layout.size().div_ceil(PAGE) * PAGE
    }
}

// SAFETY: memory is the system allocator's, or pages that no other allocation has, of at least the size. It starts at a page,
// or ends at one after rounding down to the alignment.
#[allow(unsafe_code, reason = "an allocator has no safe interface")]
unsafe impl GlobalAlloc for Guarded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let side = SIDE.load(Ordering::Relaxed);
        if side == 0 || layout.align() > 1 << 12 {
            // SAFETY: the caller keeps the contract of `alloc`.
            return unsafe { System.alloc(layout) };
        }
        let (region, len) = (Self::region(), Self::pages(layout));
        // One page in front is the guard of this allocation, or of the end of the one before.
        let at = (region.next_multiple_of(PAGE) + PAGE) + NEXT.fetch_add(len + PAGE, Ordering::Relaxed);
        if at + len + PAGE > region + REGION {
            std::process::abort();
        }
        Self::map(at, len, os::READ_WRITE);
        let gap = if side == END { len - layout.size() } else { 0 };
        (at + gap - gap % layout.align()) as *mut u8
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let at = block as usize;
        match REGION_START.get() {
            Some(region) if (*region..*region + REGION).contains(&at) => {
                Self::map(at - at % PAGE, Self::pages(layout), os::NONE);
            }
            // SAFETY: the block came from `System` with this layout.
            _ => unsafe { System.dealloc(block, layout) },
        }
    }
}

#[global_allocator]
static ALLOCATOR: Guarded = Guarded;

/// Runs with guarded allocations, for the time of the call.
fn guarded<T>(side: u8, run: impl FnOnce() -> T) -> T {
    SIDE.store(side, Ordering::Relaxed);
    let result = run();
    SIDE.store(0, Ordering::Relaxed);
    result
}

fn values<S: IntoDimension>(shape: S) -> Array<f32, S::Dim> {
    let mut i = 0;
    Array::from_shape_simple_fn(shape.into_dimension(), || {
        i += 1;
        ((i * 37 + 11) % 101) as f32 / 25.0 - 2.0
    })
}

/// The kernels that the fingerprint does not run, on shapes that fill no register and no panel.
#[derive(Default)]
struct Others(Vec<f32>);

impl Others {
    fn n_bits<T: Element>(&mut self, weights: &QTensor<T, Ix2>) -> Result<()>
    where
        T::Code: Int8,
    {
        self.forward(&LinearNBits::new(weights, None)?, weights.shape()[1])
    }

    fn forward(&mut self, layer: &LinearNBits, depth: usize) -> Result<()> {
        for rows in [1, 3, 5] {
            self.0.extend(layer.forward(&values((rows, depth)))?);
            self.0.extend(layer.forward_dynamic(&values((rows, depth)))?);
        }
        Ok(())
    }

    fn blocks<B: BlockFormat>(&mut self) -> Result<()> {
        for cols in [1, 31, 300] {
            self.0.extend(BlockTensor::<B, _>::quantize(&values((3, cols)))?.dequantize());
        }
        Ok(())
    }

    fn integer_blocks<B: IntegerBlocks>(&mut self) -> Result<()> {
        self.blocks::<B>()?;
        let weights = BlockTensor::<B, _>::quantize(&values((19, 256)))?;
        self.forward(&LinearNBits::from_blocks(&weights, None)?, 256)
    }

    fn minifloats<T: Minifloat>(&mut self) -> Result<()> {
        let x = values((7, 53));
        for granularity in [Granularity::PerTensor, Granularity::PerAxis { axis: 1 }] {
            self.0.extend(MinifloatParams::<T>::of(&x, granularity)?.quantize(&x)?.dequantize());
        }
        Ok(())
    }

    fn half<H: HalfFloat>(&mut self) -> Result<()> {
        for (outputs, depth) in [(1, 1), (19, 37), (33, 131)] {
            let weights = HalfCast::<H>::new(Overflow::Error).quantize(&values((outputs, depth)))?;
            let layer = HalfLinear::new(weights, Some(&values(outputs)))?;
            for rows in [1, 5] {
                self.0.extend(layer.forward(&values((rows, depth)))?);
            }
        }
        Ok(())
    }

    fn signs(&mut self) -> Result<()> {
        for (rows, depth, outputs) in [(1, 1, 1), (3, 37, 19), (5, 131, 33)] {
            let layer = BinaryLinear::new(&values((outputs, depth)), Some(&values(outputs)))?;
            let x = BinaryTensor::sign(&values((rows, depth)))?;
            self.0.extend(layer.forward(&x)?);
            self.0.extend(layer.forward_sign(&x)?.dequantize());
        }
        for channels in [3, 33] {
            let window = Window::new().with_padding([1, 1, 1, 1]);
            let layer = BinaryConv2d::new(&values((19, 3, 3, channels)), None, &window)?;
            let x = BinaryTensor::sign(&values((2, 7, 5, channels)))?;
            self.0.extend(layer.forward(&x)?);
            self.0.extend(layer.forward_sign(&x)?.dequantize());
        }
        Ok(())
    }

    fn floats(&mut self) -> Result<()> {
        let same = Window::new().with_padding(Padding::Same);
        for (channels, depth, groups) in [(19, 3, 1), (21, 1, 21), (67, 1, 67)] {
            let mut g = GraphBuilder::new();
            let x = g.input("x", &[1, depth * groups, 9, 7])?;
            let y = g.conv("y", x, &values((channels, depth, 3, 3)), None, same, groups)?;
            self.0.extend(g.build(&[y])?.run(&values((2, depth * groups, 9, 7)))?);
        }
        for (depth, outputs) in [(1, 1), (37, 19), (131, 33)] {
            let mut g = GraphBuilder::new();
            let x = g.input("x", &[1, depth])?;
            let y = g.linear("y", x, &values((outputs, depth)), Some(&values(outputs)))?;
            self.0.extend(g.build(&[y])?.run(&values((5, depth)))?);
        }
        Ok(())
    }

    fn run() -> Result<Vec<f32>> {
        let mut all = Self::default();
        for (depth, cols) in [(37, 19), (64, 16), (131, 33)] {
            let weights = values((cols, depth));
            all.n_bits(&Scheme::<I4>::symmetric().per_group(Axis(1), 32).quantize(&weights)?)?;
            all.n_bits(&Scheme::<U4>::asymmetric().per_group(Axis(1), 16).quantize(&weights)?)?;
            all.n_bits(&Scheme::<i8>::symmetric().per_group(Axis(1), 32).quantize(&weights)?)?;
            all.n_bits(&Ternary::absmean().per_group(Axis(1), 16).quantize(&weights)?)?;
        }
        all.integer_blocks::<ggml::Q4_0>()?;
        all.integer_blocks::<ggml::Q8_0>()?;
        all.blocks::<ggml::Q4_K>()?;
        all.blocks::<ggml::Q6_K>()?;
        all.blocks::<ggml::TQ1_0>()?;
        all.blocks::<MXFP4>()?;
        all.blocks::<MXFP8E4M3>()?;
        all.blocks::<NVFP4>()?;
        all.blocks::<NF4>()?;
        all.minifloats::<F8E4M3FN>()?;
        all.minifloats::<F8E5M2>()?;
        all.minifloats::<F6E3M2FN>()?;
        all.minifloats::<F4E2M1FN>()?;
        all.half::<f16>()?;
        all.half::<bf16>()?;
        all.signs()?;
        all.floats()?;
        Ok(all.0)
    }
}

fn battery() -> (u64, Vec<f32>) {
    (fingerprint(), Others::run().expect("valid operands"))
}

/// One test, because the switch is that of the process.
#[test]
fn every_allocation_at_a_guard_page() {
    // A byte past either end is one that the operating system cannot read.
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    for (side, past) in [(END, 1), (START, -1)] {
        let block = guarded(side, || vec![0u8; 100]);
        let edge = if side == END { 99 } else { 0 };
        let read = |at: isize| {
            let at = block.as_ptr().wrapping_offset(at).cast();
            // SAFETY: the operating system checks the address.
            #[allow(unsafe_code, reason = "a read that fails without ending the process")]
            unsafe {
                os::write(writer.as_raw_fd(), at, 1)
            }
        };
        assert_eq!((read(edge), read(edge + past)), (1, -1));
    }

    let expected = battery();
    for side in [END, START] {
        assert!(guarded(side, battery) == expected, "other results with guard pages");
    }
}
