//! The VNNI micro-kernel, for registers of 256 and of 512 bits.

/// Defines `multiply_panels`, `multiply_into`, `dot4_rows` and `peak_macs` on the given registers by the given
/// intrinsics.
///
/// The module defines `MR`, `NR`, `KR`, the elements of a register as `LANES` and the prefetch distance `AHEAD`.
macro_rules! vnni_tiles {
    (
        $features:literal, $register:ty, rows: [$($row:literal)*],
        zero: $zero:ident, add: $add:ident, sub: $sub:ident, mul: $mul:ident, xor: $xor:ident, set1: $set1_32:ident, $set1_8:ident,
        dpbusd: $dpbusd:ident, load: $load:ident, store: $store:ident $(,)?
    ) => {
        /// Accumulators of a tile: `REGISTERS` registers of columns per row.
        pub(super) type Accumulators<const ROWS: usize, const REGISTERS: usize> = [[$register; REGISTERS]; ROWS];

        /// Multiplies `ROWS` rows with some panels; half of the last one may do.
        ///
        /// Skinny products and GEMV use several `CHAINS` of accumulators, which hide the latency of `vpdpbusd`.
        #[target_feature(enable = $features)]
        fn multiply_panels<const ROWS: usize, const CHAINS: usize>(
            a: LhsRows<'_>,
            b: RhsPanels<'_>,
            acc: &mut [i32],
            acc_stride: usize,
        ) {
            let mut last = [[0; KR]; ROWS];
            let units = LhsUnits::new(a, &mut last);
            for (b, p) in b.each::<NR, { NR * KR }>().zip(0..) {
                let acc = &mut acc[p * NR..];
                match (b.start.len() > LANES, a.signed) {
                    (true, true) => store_acc(tile::<ROWS, CHAINS, 2, true>(&units, b), acc, acc_stride),
                    (true, false) => store_acc(tile::<ROWS, CHAINS, 2, false>(&units, b), acc, acc_stride),
                    (false, true) => store_acc(tile::<ROWS, CHAINS, 1, true>(&units, b), acc, acc_stride),
                    (false, false) => store_acc(tile::<ROWS, CHAINS, 1, false>(&units, b), acc, acc_stride),
                }
            }
        }

        /// Computes tiles of `MR` rows and passes their accumulators to `stage`.
        #[target_feature(enable = $features)]
        #[inline]
        fn multiply_into<S: OutputStage>(rows: usize, a: LhsRows<'_>, b: RhsPanels<'_>, stage: S) {
            match (a.signed, b.start.len() == stage.width()) {
                (true, true) => tiles_into::<true, true, S>(rows, a, b, stage),
                (true, false) => tiles_into::<true, false, S>(rows, a, b, stage),
                (false, true) => tiles_into::<false, true, S>(rows, a, b, stage),
                (false, false) => tiles_into::<false, false, S>(rows, a, b, stage),
            }
        }

        /// Owns the stage, so that the compiler keeps all of it in registers.
        #[target_feature(enable = $features)]
        #[inline(never)]
        fn tiles_into<const SIGNED: bool, const WHOLE: bool, S: OutputStage>(
            rows: usize,
            a: LhsRows<'_>,
            b: RhsPanels<'_>,
            mut stage: S,
        ) {
            for i in (0..rows).step_by(MR) {
                let mut last = [[0; KR]; MR];
                let units = LhsUnits::new(a.from(i), &mut last);
                for (b, p) in b.each::<NR, { NR * KR }>().zip(0..) {
                    let at = (i, p * NR);
                    if b.start.len() > LANES {
                        tile_into::<2, NR, SIGNED, WHOLE>(&units, b, at, &mut stage);
                    } else {
                        tile_into::<1, LANES, SIGNED, WHOLE>(&units, b, at, &mut stage);
                    }
                }
            }
        }

        /// Unrolled over rows by the macro: registers cannot be indexed.
        #[target_feature(enable = $features)]
        #[inline]
        fn tile_into<const REGISTERS: usize, const COLS: usize, const SIGNED: bool, const WHOLE: bool>(
            units: &LhsUnits<'_, MR, KR>,
            b: RhsPanel<'_, { NR * KR }>,
            (row, col): (usize, usize),
            stage: &mut impl OutputStage,
        ) {
            let acc = tile::<MR, 1, REGISTERS, SIGNED>(units, b);
            let params = stage.column_params::<COLS, WHOLE>(col);
            $(stage.store_row::<COLS, WHOLE>(row + $row, params, to_array(acc[$row]));)*
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn to_array<const REGISTERS: usize, const COLS: usize>(registers: [$register; REGISTERS]) -> [i32; COLS] {
            let mut array = [0; COLS];
            for (to, from) in array.as_chunks_mut().0.iter_mut().zip(registers) {
                store(to, from);
            }
            array
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn store_acc<const ROWS: usize, const REGISTERS: usize>(
            registers: Accumulators<ROWS, REGISTERS>,
            acc: &mut [i32],
            acc_stride: usize,
        ) {
            assert!(acc.len() >= (ROWS - 1) * acc_stride + REGISTERS * LANES, "rows of accumulators");
            for (i, row) in registers.into_iter().enumerate() {
                for (j, register) in row.into_iter().enumerate() {
                    // SAFETY: the assertion bounds the last of these places.
                    unsafe { $store(acc.as_mut_ptr().add(i * acc_stride + j * LANES).cast(), register) }
                }
            }
        }

        /// Multiplies in registers only, with independent accumulators. Returns the number of multiply–accumulates.
        #[target_feature(enable = $features)]
        fn peak_macs(rounds: usize) -> u64 {
            const CHAINS: usize = 12;
            let (a, b) = black_box(($set1_8(1), $set1_8(1)));
            let mut chains = [$zero(); CHAINS];
            for _ in 0..rounds {
                for acc in &mut chains {
                    *acc = $dpbusd(*acc, a, b);
                }
            }
            black_box(chains);
            (rounds * CHAINS * LANES * KR) as u64
        }

        #[target_feature(enable = $features)]
        #[inline]
        pub(super) fn tile<const ROWS: usize, const CHAINS: usize, const REGISTERS: usize, const SIGNED: bool>(
            units: &LhsUnits<'_, ROWS, KR>,
            panel: RhsPanel<'_, { NR * KR }>,
        ) -> Accumulators<ROWS, REGISTERS> {
            let RhsPanel { codes: b, start, zero_points } = panel;
            let mut acc = [[[$zero(); REGISTERS]; ROWS]; CHAINS];
            for (j, start) in start[..REGISTERS * LANES].as_chunks().0.iter().enumerate() {
                for row in &mut acc[0] {
                    row[j] = load(start);
                }
            }
            if !zero_points.is_empty() {
                let (zero_points, _) = zero_points[..REGISTERS * LANES].as_chunks();
                for (row, &row_sum) in acc[0].iter_mut().zip(units.sums()) {
                    for (acc, zero_points) in row.iter_mut().zip(zero_points) {
                        *acc = $sub(*acc, $mul(load(zero_points), $set1_32(row_sum)));
                    }
                }
            }
            let steps = units.whole.min(b.len());
            let (whole, b_rest) = b.split_at(steps);
            let (groups, b_left) = whole.as_chunks::<CHAINS>();
            for (g, b) in groups.iter().enumerate() {
                // Prefetch the RHS: skinny products always wait for it, others where it does not fit in L2. A prefetch
                // past its end is harmless.
                for line in 0..CHAINS * NR * KR / 64 {
                    _mm_prefetch::<_MM_HINT_T0>(b.as_ptr().cast::<i8>().wrapping_add(AHEAD + line * 64));
                }
                for (c, (acc, b)) in acc.iter_mut().zip(b).enumerate() {
                    // SAFETY: `g * CHAINS + c < steps <= units.whole`, and `i < ROWS`.
                    step::<ROWS, REGISTERS, SIGNED>(acc, |i| unsafe { units.get(i, g * CHAINS + c) }, b);
                }
            }
            for (k, b) in b_left.iter().enumerate() {
                let k = groups.len() * CHAINS + k;
                // SAFETY: `k < steps <= units.whole`, and `i < ROWS`.
                step::<ROWS, REGISTERS, SIGNED>(&mut acc[0], |i| unsafe { units.get(i, k) }, b);
            }
            if let (Some(a), Some(b)) = (units.last, b_rest.first()) {
                step::<ROWS, REGISTERS, SIGNED>(&mut acc[0], |i| a[i], b);
            }
            for c in 1..CHAINS {
                for i in 0..ROWS {
                    for j in 0..REGISTERS {
                        acc[0][i][j] = $add(acc[0][i][j], acc[c][i][j]);
                    }
                }
            }
            acc[0]
        }

        /// Accumulates one unit of `KR` codes of depth.
        #[target_feature(enable = $features)]
        #[inline]
        fn step<const ROWS: usize, const REGISTERS: usize, const SIGNED: bool>(
            acc: &mut Accumulators<ROWS, REGISTERS>,
            a: impl Fn(usize) -> [u8; KR],
            b: &[u8; NR * KR],
        ) {
            let mut columns = [$zero(); REGISTERS];
            for (column, b) in columns.iter_mut().zip(b.as_chunks().0) {
                *column = load_bytes(b);
            }
            for (i, row) in acc.iter_mut().enumerate() {
                let a = $set1_32(i32::from_le_bytes(a(i)));
                let a = if SIGNED { $xor(a, $set1_8(i8::MIN)) } else { a };
                for (acc, &b) in row.iter_mut().zip(&columns) {
                    *acc = $dpbusd(*acc, a, b);
                }
            }
        }

        /// Computes rows of depthwise outputs: two rows of a 3-tap kernel together, which share input vectors,
        /// otherwise one by one.
        #[target_feature(enable = $features)]
        #[inline]
        fn dot4_rows(
            input: Dot4Input<'_>,
            weights: &[Vector64],
            start: &[i32; CHANNELS],
            out: Dot4Accumulators<'_>,
        ) {
            input.check(1);
            let taps = input.offsets.len();
            let rows = if taps == 3 { 2 } else { 1 };
            for (i, weights) in weights.chunks(rows * taps).enumerate() {
                let (stride, row_stride) = (out.stride, out.row_stride);
                let out = Dot4Accumulators { acc: &mut out.acc[i * rows * row_stride..], stride, row_stride };
                // SAFETY: `check` saw that the vectors of all taps and outputs exist.
                unsafe {
                    match (taps, weights.len()) {
                        (3, 6) => dot4_taps::<3, 2>(input, weights, start, out),
                        (3, 3) => dot4_taps::<3, 1>(input, weights, start, out),
                        (10, 10) => dot4_taps::<10, 1>(input, weights, start, out),
                        _ => dot4_any_taps(input, weights, start, out),
                    }
                }
            }
        }

        /// Computes `ROWS` rows of a kernel whose weights fit in registers.
        ///
        /// # Safety
        /// - The vectors of all taps and outputs exist.
        #[target_feature(enable = $features)]
        #[inline(never)]
        unsafe fn dot4_taps<const TAPS: usize, const ROWS: usize>(
            input: Dot4Input<'_>,
            weights: &[Vector64],
            start: &[i32; CHANNELS],
            out: Dot4Accumulators<'_>,
        ) {
            let offsets: &[usize; TAPS] = input.offsets.first_chunk().expect("TAPS offsets");
            let mut loaded = [[[$zero(); REGISTERS]; TAPS]; ROWS];
            for (to, from) in loaded.as_flattened_mut().iter_mut().zip(&weights[..ROWS * TAPS]) {
                *to = load_vector64(from);
            }
            let start = load_channels(start);
            for x in 0..input.outputs {
                let mut acc = [start; ROWS];
                for t in 0..TAPS {
                    // SAFETY: the caller promises this vector.
                    let codes = load_vector64(unsafe { input.vectors.get_unchecked(x * input.step + offsets[t]) });
                    for r in 0..ROWS {
                        for i in 0..REGISTERS {
                            acc[r][i] = $dpbusd(acc[r][i], codes[i], loaded[r][t][i]);
                        }
                    }
                }
                for r in 0..ROWS {
                    store_channels(&mut out.acc[r * out.row_stride + x * out.stride..], acc[r]);
                }
            }
        }

        /// Computes one row of a kernel of any number of taps, with weights from memory.
        ///
        /// # Safety
        /// - The vectors of all taps and outputs exist.
        #[target_feature(enable = $features)]
        #[inline(never)]
        unsafe fn dot4_any_taps(
            input: Dot4Input<'_>,
            weights: &[Vector64],
            start: &[i32; CHANNELS],
            out: Dot4Accumulators<'_>,
        ) {
            let start = load_channels(start);
            for x in 0..input.outputs {
                let mut acc = start;
                for (&offset, weights) in input.offsets.iter().zip(weights) {
                    // SAFETY: the caller promises this vector.
                    let codes = load_vector64(unsafe { input.vectors.get_unchecked(x * input.step + offset) });
                    let weights = load_vector64(weights);
                    for i in 0..REGISTERS {
                        acc[i] = $dpbusd(acc[i], codes[i], weights[i]);
                    }
                }
                store_channels(&mut out.acc[x * out.stride..], acc);
            }
        }

        /// Registers of 16 channels.
        const REGISTERS: usize = CHANNELS / LANES;

        #[target_feature(enable = $features)]
        #[inline]
        fn load_vector64(from: &Vector64) -> [$register; REGISTERS] {
            let mut registers = [$zero(); REGISTERS];
            for (to, from) in registers.iter_mut().zip(from.as_chunks().0) {
                *to = load_bytes(from);
            }
            registers
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn load_channels(from: &[i32; CHANNELS]) -> [$register; REGISTERS] {
            let mut registers = [$zero(); REGISTERS];
            for (to, from) in registers.iter_mut().zip(from.as_chunks().0) {
                *to = load(from);
            }
            registers
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn store_channels(to: &mut [i32], registers: [$register; REGISTERS]) {
            for (to, from) in to[..CHANNELS].as_chunks_mut().0.iter_mut().zip(registers) {
                store(to, from);
            }
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn load_bytes(from: &[u8; LANES * KR]) -> $register {
            // SAFETY: the array has the size of the register.
            unsafe { $load(from.as_ptr().cast()) }
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn load(from: &[i32; LANES]) -> $register {
            // SAFETY: the array has the size of the register.
            unsafe { $load(from.as_ptr().cast()) }
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn store(to: &mut [i32; LANES], value: $register) {
            // SAFETY: the array has the size of the register.
            unsafe { $store(to.as_mut_ptr().cast(), value) }
        }
    };
}
pub(super) use vnni_tiles;
