//! The multiplication of codes, and the tile of a product.

use crate::simd::{Target, Vector};

/// How an instruction set multiplies codes: by a dot product of bytes (VNNI), or in pairs of 16-bit integers.
///
/// The right-hand side is signed bytes. A *unit* of the left-hand side is 4 bytes: four codes, or two codes widened to
/// 16 bits.
pub(crate) trait Gemm: Target {
    type V: Vector;
    /// Weights of [`dot4`](Self::dot4), prepared.
    type Weights: Copy;
    /// Rows of a tile.
    const MR: usize;
    /// Codes of depth in a unit: 4 or 2.
    const KR: usize;
    /// True if panels hold the codes of a unit side by side for each column, false if they hold the columns of each
    /// depth.
    const INTERLEAVED: bool = true;
    /// True if [`dot`](Self::dot) multiplies by one element of a register of units, false if units are broadcast.
    const BY_ELEMENT: bool = false;
    /// True if codes of bytes are multiplied as signed ones, false if as unsigned ones. The sign offset converts others.
    const SIGNED_LHS: bool = false;
    /// The greatest sum of two products in an accumulator of [`dot4_small`](Self::dot4_small). Accumulators of 32 bits wrap.
    const SMALL_MAX: i32 = i32::MAX;
    /// Distance at which the RHS is prefetched, in bytes, or 0. The hardware prefetcher stops at each page.
    const AHEAD: usize;

    fn vector(self) -> Self::V;

    /// Loads a unit of `LANES` columns of the RHS.
    ///
    /// # Safety
    /// - `from` is valid for reads of `LANES * KR` bytes.
    unsafe fn load_rhs(self, from: *const u8) -> <Self::V as Vector>::I32;

    /// Returns `acc + Σ a[i] * b[i]` for the codes of a unit of each column. `UNIT` is the element of `a`, or 0 if it is
    /// broadcast.
    fn dot<const UNIT: i32>(
        self,
        acc: <Self::V as Vector>::I32,
        a: <Self::V as Vector>::I32,
        b: <Self::V as Vector>::I32,
    ) -> <Self::V as Vector>::I32;

    /// Prepares signed bytes for [`dot4`](Self::dot4).
    fn weights(self, bytes: <Self::V as Vector>::I32) -> Self::Weights;

    /// Returns `acc + Σ codes[i] * weights[i]` for the four bytes of each element. The codes have the sign of
    /// [`SIGNED_LHS`](Self::SIGNED_LHS), weights are signed.
    fn dot4(
        self,
        acc: <Self::V as Vector>::I32,
        codes: <Self::V as Vector>::I32,
        weights: Self::Weights,
    ) -> <Self::V as Vector>::I32;

    /// Returns `acc + Σ codes[i] * bytes[i]` for the four bytes of each element, in accumulators that
    /// [`add_small`](Self::add_small) takes. The codes are 0 to 127, the bytes signed.
    #[inline(always)]
    fn dot4_small(
        self,
        acc: <Self::V as Vector>::I32,
        codes: <Self::V as Vector>::I32,
        bytes: <Self::V as Vector>::I32,
    ) -> <Self::V as Vector>::I32 {
        self.dot4(acc, codes, self.weights(bytes))
    }

    /// Adds accumulators of [`dot4_small`](Self::dot4_small), which start at 0.
    #[inline(always)]
    fn add_small(self, acc: <Self::V as Vector>::I32, small: <Self::V as Vector>::I32) -> <Self::V as Vector>::I32 {
        self.vector().add(acc, small)
    }
}

/// Implements the products of small codes in [`Gemm`] for a vector without a dot product of bytes: sums of two products in
/// 16 bits.
#[allow(unused_macros, reason = "some targets have a better product")]
macro_rules! small_i16 {
    ($vector:ty) => {
        const SMALL_MAX: i32 = i16::MAX as i32;

        #[inline(always)]
        fn dot4_small(
            self,
            acc: <$vector as $crate::simd::Vector>::I32,
            codes: <$vector as $crate::simd::Vector>::I32,
            bytes: <$vector as $crate::simd::Vector>::I32,
        ) -> <$vector as $crate::simd::Vector>::I32 {
            self.add_saturating_i16(acc, self.multiply_add_i8(codes, bytes))
        }

        #[inline(always)]
        fn add_small(
            self,
            acc: <$vector as $crate::simd::Vector>::I32,
            small: <$vector as $crate::simd::Vector>::I32,
        ) -> <$vector as $crate::simd::Vector>::I32 {
            self.add(acc, self.multiply_add_i16(small, self.splat(0x0001_0001)))
        }
    };
}
#[allow(unused_imports, reason = "some targets have a better product")]
pub(crate) use small_i16;

/// Implements [`Gemm`] for a vector without a dot product of bytes: widened to 16 bits and multiplied in pairs, which
/// is exact. (`vpmaddubsw` would do twice the work but saturates: 255 × -128 + 255 × -128 leaves 16 bits. Codes of at most 7
/// bits do not: see [`Gemm::dot4_small`].)
#[allow(unused_macros, reason = "some targets have a better product")]
macro_rules! multiply_i16 {
    ($token:ident, MR = $mr:literal) => {
        impl $crate::simd::Gemm for $token {
            type V = Self;
            /// The even and the odd bytes.
            type Weights = [<Self as Vector>::I32; 2];
            const MR: usize = $mr;
            const KR: usize = 2;
            const AHEAD: usize = 0;
            $crate::simd::small_i16!(Self);

            #[inline(always)]
            fn vector(self) -> Self {
                self
            }

            #[inline(always)]
            unsafe fn load_rhs(self, from: *const u8) -> <Self as Vector>::I32 {
                // SAFETY: the caller promises `2 * LANES` bytes.
                unsafe { self.load_i8_as_i16(from) }
            }

            #[inline(always)]
            fn dot<const UNIT: i32>(
                self,
                acc: <Self as Vector>::I32,
                a: <Self as Vector>::I32,
                b: <Self as Vector>::I32,
            ) -> <Self as Vector>::I32 {
                self.add(acc, self.multiply_add_i16(a, b))
            }

            #[inline(always)]
            fn weights(self, bytes: <Self as Vector>::I32) -> [<Self as Vector>::I32; 2] {
                [self.even_i8(bytes), self.odd_i8(bytes)]
            }

            #[inline(always)]
            fn dot4(
                self,
                acc: <Self as Vector>::I32,
                codes: <Self as Vector>::I32,
                [even, odd]: [<Self as Vector>::I32; 2],
            ) -> <Self as Vector>::I32 {
                let even = self.multiply_add_i16(self.even_u8(codes), even);
                self.add(acc, self.add(even, self.multiply_add_i16(self.odd_u8(codes), odd)))
            }
        }
    };
}
#[allow(unused_imports, reason = "some targets have a better product")]
pub(crate) use multiply_i16;

/// Bytes of a unit of the LHS.
pub(crate) const UNIT: usize = 4;

/// Registers of columns of a panel: `NR` is `REGISTERS * LANES`.
pub(crate) const REGISTERS: usize = 2;

/// Rows of the LHS as a tile reads them.
#[derive(Clone, Copy)]
pub(crate) struct LhsRows<'a> {
    /// At least from the first byte of the first row to the last byte of the last row.
    pub(crate) bytes: &'a [u8],
    /// Distance between rows in bytes.
    pub(crate) stride: usize,
    /// Length of a row in bytes: its codes, each of one or two bytes.
    pub(crate) len: usize,
    /// True if the codes are signed bytes. A tile of a dot product of bytes of the other sign adds the sign offset: XOR
    /// 0x80.
    pub(crate) signed: bool,
    /// Sum of each row's codes, with the sign offset if the tile adds it. Empty if the RHS has no zero points.
    pub(crate) sums: &'a [i32],
}

impl<'a> LhsRows<'a> {
    /// Returns the rows from row `i` on.
    #[inline(always)]
    pub(crate) fn from(self, i: usize) -> Self {
        LhsRows { bytes: &self.bytes[i * self.stride..], sums: self.sums.get(i..).unwrap_or_default(), ..self }
    }

    /// Returns the bytes of row `i`.
    #[inline(always)]
    pub(crate) fn row(self, i: usize) -> &'a [u8] {
        &self.bytes[i * self.stride..][..self.len]
    }
}

/// A panel of the RHS: `NR` columns, with the initial accumulators and zero points of those that are computed.
#[derive(Clone, Copy)]
pub(crate) struct Panel<'a> {
    /// `[REGISTERS][units][LANES][KR]`: the bits of signed codes, zeros beyond the depth.
    pub(crate) codes: &'a [u8],
    /// Initial accumulator of each column to compute: one register of them, or all.
    pub(crate) start: &'a [i32],
    /// Zero point of each column, or empty if all are 0.
    pub(crate) zero_points: &'a [i32],
}

/// `ROWS` rows of the LHS as units. It owns the bounds check of the innermost loop.
pub(crate) struct Units<'a, const ROWS: usize> {
    first: *const u8,
    stride: usize,
    sums: &'a [i32],
    /// Number of whole units in a row.
    whole: usize,
    /// The remainder of each row, zero-padded to a unit. The RHS holds zeros there, so the padding does not matter.
    last: Option<&'a [[u8; UNIT]; ROWS]>,
    /// 0x80 in each byte if the tile adds the sign offset.
    sign_xor: i32,
}

impl<'a, const ROWS: usize> Units<'a, ROWS> {
    /// Rows that are multiplied as `signed` codes. Copies row remainders, if there are any, to `last`. Only a reference to
    /// it is kept: it is seldom needed.
    #[inline(always)]
    pub(crate) fn new(rows: LhsRows<'a>, signed: bool, last: &'a mut [[u8; UNIT]; ROWS]) -> Self {
        let end = const { ROWS - 1 }.checked_mul(rows.stride).and_then(|start| start.checked_add(rows.len));
        assert!(end.is_some_and(|end| end <= rows.bytes.len()), "rows of the LHS");
        let more = !rows.len.is_multiple_of(UNIT);
        if more {
            copy_remainders(rows, last);
        }
        let sign_xor = if rows.signed != signed { 0x8080_8080u32 as i32 } else { 0 };
        let (first, stride, whole) = (rows.bytes.as_ptr(), rows.stride, rows.len / UNIT);
        Self { first, stride, sums: rows.sums, whole, last: more.then_some(last), sign_xor }
    }

    /// Returns unit `k` of row `i`.
    ///
    /// # Safety
    /// - `i < ROWS` and `k < self.whole`.
    #[inline(always)]
    unsafe fn get(&self, i: usize, k: usize) -> i32 {
        // SAFETY: row `i` starts at `i * stride` and has `whole` units; `new` checked that the last row is in bounds.
        i32::from_le(unsafe { self.first.add(i * self.stride + k * UNIT).cast::<i32>().read_unaligned() })
    }
}

/// Not inlined, so that its branches do not slow down rows that end with a whole unit.
#[inline(never)]
fn copy_remainders(rows: LhsRows<'_>, last: &mut [[u8; UNIT]]) {
    for (i, last) in last.iter_mut().enumerate() {
        let (_, rest) = rows.row(i).as_chunks::<UNIT>();
        last[..rest.len()].copy_from_slice(rest);
    }
}

/// The accumulators of a tile: `REGS` registers of columns per row.
pub(crate) type Tile<G, const ROWS: usize, const REGS: usize> = [[<<G as Gemm>::V as Vector>::I32; REGS]; ROWS];

/// Computes a tile: `acc[i][j] = start[j] - sums[i] * zero_points[j] + Σ_k a[i][k] * b[k][j]`. All arithmetic wraps.
///
/// With `SIGNED` the sign offset is added where the rows want it; without, they must not. Tiles of few rows deal the
/// depth to several `CHAINS` of accumulators, which hide the latency of a dot product.
#[inline(always)]
pub(crate) fn tile<G: Gemm, const ROWS: usize, const REGS: usize, const CHAINS: usize, const SIGNED: bool>(
    g: G,
    a: &Units<'_, ROWS>,
    b: Panel<'_>,
) -> Tile<G, ROWS, REGS> {
    let (v, lanes) = (g.vector(), G::V::LANES);
    let unit = lanes * G::KR;
    // Rows may be longer than panels: the excess would be multiplied by zeros.
    let steps = b.codes.len() / (REGISTERS * unit);
    let register = steps * unit;
    let whole = a.whole.min(steps);
    assert!(b.start.len() >= REGS * lanes && REGS <= REGISTERS, "initial accumulators of a tile");
    let mut acc = [[[v.splat(0); REGS]; ROWS]; CHAINS];
    for j in 0..REGS {
        let start = load_i32(v, &b.start[j * lanes..]);
        for row in &mut acc[0] {
            row[j] = start;
        }
        if !b.zero_points.is_empty() {
            let zero_points = load_i32(v, &b.zero_points[j * lanes..]);
            for (row, &sum) in acc[0].iter_mut().zip(&a.sums[..ROWS]) {
                row[j] = v.sub(row[j], v.mul(zero_points, v.splat(sum)));
            }
        }
    }
    let panel = b.codes.as_ptr();
    let mut k = 0;
    let round = if G::BY_ELEMENT { ELEMENTS } else { CHAINS };
    let mut rows = [a.first; ROWS];
    if const { G::BY_ELEMENT } {
        for (i, row) in rows.iter_mut().enumerate() {
            *row = a.first.wrapping_add(i * a.stride);
        }
        // Without it, the loop would compute the addresses of rows one from the other.
        rows = core::hint::black_box(rows);
    }
    while k + round <= whole {
        if G::AHEAD > 0 {
            for j in 0..REGS {
                for line in 0..(round * unit).div_ceil(64) {
                    v.prefetch(panel.wrapping_add(j * register + k * unit + G::AHEAD + line * 64));
                }
            }
        }
        // SAFETY: `k + round <= whole`, so both operands have these units.
        unsafe {
            if const { G::BY_ELEMENT } {
                let b = panel.add(k * unit);
                step_by_element::<G, ROWS, REGS, CHAINS, SIGNED>(g, &mut acc, &rows, k, a.sign_xor, b, register);
            } else {
                for (c, acc) in acc.iter_mut().enumerate() {
                    step::<G, ROWS, REGS, SIGNED>(g, acc, a, k + c, panel.add((k + c) * unit), register);
                }
            }
        }
        k += round;
    }
    while k < whole {
        // SAFETY: `k < whole`, so both operands have this unit.
        unsafe { step::<G, ROWS, REGS, SIGNED>(g, &mut acc[0], a, k, panel.add(k * unit), register) }
        k += 1;
    }
    if let (Some(last), true) = (a.last, whole < steps) {
        let last = Units { first: last.as_ptr().cast(), stride: UNIT, whole: 1, last: None, ..*a };
        // SAFETY: `last` has one unit, and the panel has this one, because `whole < steps`.
        unsafe { step::<G, ROWS, REGS, SIGNED>(g, &mut acc[0], &last, 0, panel.add(whole * unit), register) }
    }
    let mut sum = acc[0];
    for acc in acc.iter().skip(1) {
        for (sum, acc) in sum.as_flattened_mut().iter_mut().zip(acc.as_flattened()) {
            *sum = v.add(*sum, *acc);
        }
    }
    sum
}

/// Accumulates unit `k` of the rows and the unit of a panel at `b`, whose registers are `register` bytes apart.
///
/// # Safety
/// - `k < a.whole`, and `b` is valid for reads of a unit of `REGS` registers of columns.
#[inline(always)]
unsafe fn step<G: Gemm, const ROWS: usize, const REGS: usize, const SIGNED: bool>(
    g: G,
    acc: &mut Tile<G, ROWS, REGS>,
    a: &Units<'_, ROWS>,
    k: usize,
    b: *const u8,
    register: usize,
) {
    let v = g.vector();
    let mut columns = [v.splat(0); REGS];
    for (j, column) in columns.iter_mut().enumerate() {
        // SAFETY: the caller promises the columns.
        *column = unsafe { g.load_rhs(b.add(j * register)) };
    }
    for (i, row) in acc.iter_mut().enumerate() {
        // SAFETY: `i < ROWS`, and the caller promises `k`.
        let unit = v.splat(unsafe { a.get(i, k) });
        let unit = if SIGNED { v.xor(unit, v.splat(a.sign_xor)) } else { unit };
        for (acc, &b) in row.iter_mut().zip(&columns) {
            *acc = g.dot::<0>(*acc, unit, b);
        }
    }
}

/// Units of a register that are multiplied by element.
const ELEMENTS: usize = 4;

/// Accumulates [`ELEMENTS`] units of the rows from `k` on, which are dealt to the chains, as [`step`] does one.
///
/// # Safety
/// - `rows` are valid for reads up to these units, and `b` of `REGS` registers of columns of them.
#[inline(always)]
unsafe fn step_by_element<G: Gemm, const ROWS: usize, const REGS: usize, const CHAINS: usize, const SIGNED: bool>(
    g: G,
    acc: &mut [Tile<G, ROWS, REGS>; CHAINS],
    rows: &[*const u8; ROWS],
    k: usize,
    sign_xor: i32,
    b: *const u8,
    register: usize,
) {
    const { assert!(!G::BY_ELEMENT || G::V::LANES == ELEMENTS) }
    let (v, unit) = (g.vector(), G::V::LANES * G::KR);
    let mut units = [v.splat(0); ROWS];
    for (units, row) in units.iter_mut().zip(rows) {
        // SAFETY: the caller promises the units.
        let codes = unsafe { v.load(row.add(k * UNIT)) };
        *units = if SIGNED { v.xor(codes, v.splat(sign_xor)) } else { codes };
    }
    // SAFETY: the caller promises the columns.
    unsafe {
        multiply_element::<G, ROWS, REGS, 0>(g, &mut acc[0], &units, b, register);
        multiply_element::<G, ROWS, REGS, 1>(g, &mut acc[1 % CHAINS], &units, b.add(unit), register);
        multiply_element::<G, ROWS, REGS, 2>(g, &mut acc[2 % CHAINS], &units, b.add(2 * unit), register);
        multiply_element::<G, ROWS, REGS, 3>(g, &mut acc[3 % CHAINS], &units, b.add(3 * unit), register);
    }
}

/// Accumulates an element of each row's units. The loop is short enough to be unrolled.
///
/// # Safety
/// - `b` is valid for reads of a unit of `REGS` registers of columns.
#[inline(always)]
unsafe fn multiply_element<G: Gemm, const ROWS: usize, const REGS: usize, const ELEMENT: i32>(
    g: G,
    acc: &mut Tile<G, ROWS, REGS>,
    units: &[<G::V as Vector>::I32; ROWS],
    b: *const u8,
    register: usize,
) {
    let mut columns = [g.vector().splat(0); REGS];
    for (j, column) in columns.iter_mut().enumerate() {
        // SAFETY: the caller promises the columns.
        *column = unsafe { g.load_rhs(b.add(j * register)) };
    }
    for (row, &units) in acc.iter_mut().zip(units) {
        for (acc, &b) in row.iter_mut().zip(&columns) {
            *acc = g.dot::<ELEMENT>(*acc, units, b);
        }
    }
}

/// Loads the first register of a slice.
#[inline(always)]
pub(super) fn load_i32<V: Vector>(v: V, from: &[i32]) -> V::I32 {
    assert!(from.len() >= V::LANES, "a register of integers");
    // SAFETY: the assertion bounds the read.
    unsafe { v.load(from.as_ptr().cast()) }
}

/// Runs a product in registers and returns the number of multiply–accumulates: the peak of one core.
#[inline(always)]
pub(crate) fn peak_macs<G: Gemm>(g: G, rounds: usize) -> u64 {
    const CHAINS: usize = 12;
    let v = g.vector();
    let b = core::hint::black_box(v.splat(0x0101_0101));
    let mut chains = [v.splat(0); CHAINS];
    for _ in 0..rounds {
        for acc in &mut chains {
            // Each product has an operand of its own, so that none can be computed once for all.
            *acc = g.dot::<0>(*acc, *acc, b);
        }
    }
    core::hint::black_box(chains);
    (rounds * CHAINS * G::V::LANES * G::KR) as u64
}
