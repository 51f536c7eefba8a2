//! The tile that both sets with VNNI have, on registers of their own width.

/// Defines `panels`, which multiplies rows with some panels, on these registers by these intrinsics. The module has
/// `NR` columns of a panel, units of `KR` codes, `LANES` in a register, and prefetches `AHEAD` bytes.
macro_rules! vnni_tiles {
    (
        $features:literal, $register:ty, rows: [$($row:literal)*],
        zero: $zero:ident, add: $add:ident, sub: $sub:ident, mul: $mul:ident, xor: $xor:ident, set1: $set1_32:ident, $set1_8:ident,
        dpbusd: $dpbusd:ident, load: $load:ident, store: $store:ident $(,)?
    ) => {
        /// The accumulators of a tile: some registers of columns for each row.
        pub(super) type Sums<const ROWS: usize, const REGISTERS: usize> = [[$register; REGISTERS]; ROWS];

        /// `ROWS` rows against some panels, the depth dealt out to `CHAINS` sets of accumulators, so that few rows do not wait
        /// for the latency of each sum. Of the last panel half may do.
        #[target_feature(enable = $features)]
        fn panels<const ROWS: usize, const CHAINS: usize>(
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
                    (true, true) => store_sums(tile::<ROWS, CHAINS, 2, true>(&units, b), acc, acc_stride),
                    (true, false) => store_sums(tile::<ROWS, CHAINS, 2, false>(&units, b), acc, acc_stride),
                    (false, true) => store_sums(tile::<ROWS, CHAINS, 1, true>(&units, b), acc, acc_stride),
                    (false, false) => store_sums(tile::<ROWS, CHAINS, 1, false>(&units, b), acc, acc_stride),
                }
            }
        }

        /// Tiles of `MR` rows, their sums given to `sink`.
        #[target_feature(enable = $features)]
        #[inline]
        fn give_panels<S: OutputStage>(rows: usize, a: LhsRows<'_>, b: RhsPanels<'_>, stage: S) {
            match (a.signed, b.start.len() == stage.width()) {
                (true, true) => panels_to::<true, true, S>(rows, a, b, stage),
                (true, false) => panels_to::<true, false, S>(rows, a, b, stage),
                (false, true) => panels_to::<false, true, S>(rows, a, b, stage),
                (false, false) => panels_to::<false, false, S>(rows, a, b, stage),
            }
        }

        /// It has the sink for its own, so that nothing of it need be in memory.
        #[target_feature(enable = $features)]
        #[inline(never)]
        fn panels_to<const SIGNED: bool, const WHOLE: bool, S: OutputStage>(
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
                        panel_to::<2, NR, SIGNED, WHOLE>(&units, b, at, &mut stage);
                    } else {
                        panel_to::<1, LANES, SIGNED, WHOLE>(&units, b, at, &mut stage);
                    }
                }
            }
        }

        /// Not in a loop over rows, because registers have no index.
        #[target_feature(enable = $features)]
        #[inline]
        fn panel_to<const REGISTERS: usize, const COLS: usize, const SIGNED: bool, const WHOLE: bool>(
            units: &LhsUnits<'_, MR, KR>,
            b: RhsPanel<'_, { NR * KR }>,
            (row, col): (usize, usize),
            stage: &mut impl OutputStage,
        ) {
            let sums = tile::<MR, 1, REGISTERS, SIGNED>(units, b);
            let columns = stage.column_params::<COLS, WHOLE>(col);
            $(stage.store_row::<COLS, WHOLE>(row + $row, columns, numbers(sums[$row]));)*
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn numbers<const REGISTERS: usize, const COLS: usize>(registers: [$register; REGISTERS]) -> [i32; COLS] {
            let mut numbers = [0; COLS];
            for (to, from) in numbers.as_chunks_mut().0.iter_mut().zip(registers) {
                store(to, from);
            }
            numbers
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn store_sums<const ROWS: usize, const REGISTERS: usize>(
            sums: Sums<ROWS, REGISTERS>,
            acc: &mut [i32],
            acc_stride: usize,
        ) {
            assert!(acc.len() >= (ROWS - 1) * acc_stride + REGISTERS * LANES, "rows of accumulators");
            for (i, sums) in sums.into_iter().enumerate() {
                for (j, sum) in sums.into_iter().enumerate() {
                    // SAFETY: the last of these places exists, as was just asked.
                    unsafe { $store(acc.as_mut_ptr().add(i * acc_stride + j * LANES).cast(), sum) }
                }
            }
        }

        /// Registers only: sums that do not wait for one another. Returns how many products of codes it computed.
        #[target_feature(enable = $features)]
        fn peak_macs(rounds: usize) -> u64 {
            const SUMS: usize = 12;
            let (a, b) = black_box(($set1_8(1), $set1_8(1)));
            let mut sums = [$zero(); SUMS];
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = $dpbusd(*sum, a, b);
                }
            }
            black_box(sums);
            (rounds * SUMS * LANES * KR) as u64
        }

        #[target_feature(enable = $features)]
        #[inline]
        pub(super) fn tile<const ROWS: usize, const CHAINS: usize, const REGISTERS: usize, const SIGNED: bool>(
            units: &LhsUnits<'_, ROWS, KR>,
            panel: RhsPanel<'_, { NR * KR }>,
        ) -> Sums<ROWS, REGISTERS> {
            let RhsPanel { codes: b, start, zero_points } = panel;
            let mut sums = [[[$zero(); REGISTERS]; ROWS]; CHAINS];
            for (j, start) in start[..REGISTERS * LANES].as_chunks().0.iter().enumerate() {
                for sums in &mut sums[0] {
                    sums[j] = load(start);
                }
            }
            if !zero_points.is_empty() {
                let (zero_points, _) = zero_points[..REGISTERS * LANES].as_chunks();
                for (sums, &row) in sums[0].iter_mut().zip(units.sums()) {
                    for (sum, zero_points) in sums.iter_mut().zip(zero_points) {
                        *sum = $sub(*sum, $mul(load(zero_points), $set1_32(row)));
                    }
                }
            }
            let steps = units.whole.min(b.len());
            let (whole, b_rest) = b.split_at(steps);
            let (groups, b_left) = whole.as_chunks::<CHAINS>();
            for (g, b) in groups.iter().enumerate() {
                // Ask for the right side early: rows wait for it, few of them always, many where it comes from beyond the
                // second-level cache. An address beyond its end does no harm.
                for line in 0..CHAINS * NR * KR / 64 {
                    _mm_prefetch::<_MM_HINT_T0>(b.as_ptr().cast::<i8>().wrapping_add(AHEAD + line * 64));
                }
                for (c, (sums, b)) in sums.iter_mut().zip(b).enumerate() {
                    // SAFETY: `g * CHAINS + c` is below `steps`.
                    step::<ROWS, REGISTERS, SIGNED>(sums, |i| unsafe { units.get(i, g * CHAINS + c) }, b);
                }
            }
            for (k, b) in b_left.iter().enumerate() {
                let k = groups.len() * CHAINS + k;
                // SAFETY: `k` is below `steps`.
                step::<ROWS, REGISTERS, SIGNED>(&mut sums[0], |i| unsafe { units.get(i, k) }, b);
            }
            if let (Some(a), Some(b)) = (units.last, b_rest.first()) {
                step::<ROWS, REGISTERS, SIGNED>(&mut sums[0], |i| a[i], b);
            }
            for c in 1..CHAINS {
                for i in 0..ROWS {
                    for j in 0..REGISTERS {
                        sums[0][i][j] = $add(sums[0][i][j], sums[c][i][j]);
                    }
                }
            }
            sums[0]
        }

        /// A unit of depth of a tile.
        #[target_feature(enable = $features)]
        #[inline]
        fn step<const ROWS: usize, const REGISTERS: usize, const SIGNED: bool>(
            sums: &mut Sums<ROWS, REGISTERS>,
            a: impl Fn(usize) -> [u8; KR],
            b: &[u8; NR * KR],
        ) {
            let mut columns = [$zero(); REGISTERS];
            for (column, b) in columns.iter_mut().zip(b.as_chunks().0) {
                *column = load_bytes(b);
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = $set1_32(i32::from_le_bytes(a(i)));
                let a = if SIGNED { $xor(a, $set1_8(i8::MIN)) } else { a };
                for (sum, &b) in sums.iter_mut().zip(&columns) {
                    *sum = $dpbusd(*sum, a, b);
                }
            }
        }

        /// Rows of outputs from quads: one or two at a time, so that those read each line once for both.
        #[target_feature(enable = $features)]
        #[inline]
        fn dot4_rows(quads: Dot4Input<'_>, weights: &[Vector64], start: &[i32; CHANNELS], acc: Dot4Accumulators<'_>) {
            quads.check(1);
            let taps = quads.offsets.len();
            let at_once = if taps == 3 { 2 } else { 1 };
            for (i, weights) in weights.chunks(at_once * taps).enumerate() {
                let (stride, row_stride) = (acc.stride, acc.row_stride);
                let acc = Dot4Accumulators { acc: &mut acc.acc[i * at_once * row_stride..], stride, row_stride };
                // SAFETY: the lines of all taps of all outputs exist.
                unsafe {
                    match (taps, weights.len()) {
                        (3, 6) => dot4_taps::<3, 2>(quads, weights, start, acc),
                        (3, 3) => dot4_taps::<3, 1>(quads, weights, start, acc),
                        (10, 10) => dot4_taps::<10, 1>(quads, weights, start, acc),
                        _ => dot4_any_taps(quads, weights, start, acc),
                    }
                }
            }
        }

        /// The taps of each output, their weights in registers.
        ///
        /// # Safety
        /// - The lines of all taps of all outputs exist.
        #[target_feature(enable = $features)]
        #[inline(never)]
        unsafe fn dot4_taps<const TAPS: usize, const ROWS: usize>(
            quads: Dot4Input<'_>,
            weights: &[Vector64],
            start: &[i32; CHANNELS],
            acc: Dot4Accumulators<'_>,
        ) {
            let offsets: &[usize; TAPS] = quads.offsets.first_chunk().expect("as many taps");
            let mut loaded = [[[$zero(); REGISTERS]; TAPS]; ROWS];
            for (to, from) in loaded.as_flattened_mut().iter_mut().zip(&weights[..ROWS * TAPS]) {
                *to = line(from);
            }
            let start = channels(start);
            for x in 0..quads.outputs {
                let mut sums = [start; ROWS];
                for t in 0..TAPS {
                    // SAFETY: the caller promises this line.
                    let codes = line(unsafe { quads.vectors.get_unchecked(x * quads.step + offsets[t]) });
                    for r in 0..ROWS {
                        for i in 0..REGISTERS {
                            sums[r][i] = $dpbusd(sums[r][i], codes[i], loaded[r][t][i]);
                        }
                    }
                }
                for r in 0..ROWS {
                    store_channels(&mut acc.acc[r * acc.row_stride + x * acc.stride..], sums[r]);
                }
            }
        }

        /// One row of any number of taps, their weights from memory.
        ///
        /// # Safety
        /// - The lines of all taps of all outputs exist.
        #[target_feature(enable = $features)]
        #[inline(never)]
        unsafe fn dot4_any_taps(quads: Dot4Input<'_>, weights: &[Vector64], start: &[i32; CHANNELS], acc: Dot4Accumulators<'_>) {
            let start = channels(start);
            for x in 0..quads.outputs {
                let mut sums = start;
                for (&offset, weights) in quads.offsets.iter().zip(weights) {
                    // SAFETY: the caller promises this line.
                    let codes = line(unsafe { quads.vectors.get_unchecked(x * quads.step + offset) });
                    let weights = line(weights);
                    for i in 0..REGISTERS {
                        sums[i] = $dpbusd(sums[i], codes[i], weights[i]);
                    }
                }
                store_channels(&mut acc.acc[x * acc.stride..], sums);
            }
        }

        /// The registers of 16 channels.
        const REGISTERS: usize = CHANNELS / LANES;

        #[target_feature(enable = $features)]
        #[inline]
        fn line(from: &Vector64) -> [$register; REGISTERS] {
            let mut registers = [$zero(); REGISTERS];
            for (to, from) in registers.iter_mut().zip(from.as_chunks().0) {
                *to = load_bytes(from);
            }
            registers
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn channels(from: &[i32; CHANNELS]) -> [$register; REGISTERS] {
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
            // SAFETY: the array is as long as the register.
            unsafe { $load(from.as_ptr().cast()) }
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn load(from: &[i32; LANES]) -> $register {
            // SAFETY: the array is as long as the register.
            unsafe { $load(from.as_ptr().cast()) }
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn store(to: &mut [i32; LANES], value: $register) {
            // SAFETY: the array is as long as the register.
            unsafe { $store(to.as_mut_ptr().cast(), value) }
        }
    };
}
pub(super) use vnni_tiles;
