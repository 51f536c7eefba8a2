//! The tile that both sets with VNNI have, on registers of their own width.

/// Defines `panels`, which multiplies rows with some panels, on these registers by these intrinsics. The module has
/// `NR` columns of a panel, units of `KU` codes, `LANES` in a register, and prefetches `AHEAD` bytes.
macro_rules! vnni_tiles {
    (
        $features:literal, $register:ty,
        zero: $zero:ident, add: $add:ident, xor: $xor:ident, set1: $set1_32:ident, $set1_8:ident,
        dpbusd: $dpbusd:ident, load: $load:ident, store: $store:ident $(,)?
    ) => {
        /// The rows of a tile, cut into units, and their ends.
        type Units<'a, const ROWS: usize> = ([&'a [[u8; KU]]; ROWS], Option<[[u8; KU]; ROWS]>);

        /// The accumulators of a tile.
        type Sums<const ROWS: usize> = [[$register; NR / LANES]; ROWS];

        /// `ROWS` rows against some panels, the depth dealt out to `CHAINS` sets of accumulators, so that few rows do not wait
        /// for the latency of each sum.
        #[target_feature(enable = $features)]
        fn panels<const ROWS: usize, const CHAINS: usize>(
            a: Rows<'_>,
            b: &[u8],
            start: &[i32],
            acc: &mut [i32],
            acc_stride: usize,
        ) {
            let units = a.units::<ROWS, KU>();
            let (start, _) = start.as_chunks::<NR>();
            let panel_len = b.len() / start.len();
            for (p, start) in start.iter().enumerate() {
                let (b, _) = b[p * panel_len..][..panel_len].as_chunks();
                let acc = &mut acc[p * NR..];
                if a.signed {
                    tile::<ROWS, CHAINS, true>(&units, b, start, acc, acc_stride);
                } else {
                    tile::<ROWS, CHAINS, false>(&units, b, start, acc, acc_stride);
                }
            }
        }

        /// Registers only: sums that do not wait for one another. Returns how many products of codes it computed.
        #[target_feature(enable = $features)]
        fn peak(rounds: usize) -> u64 {
            const SUMS: usize = 12;
            let (a, b) = black_box(($set1_8(1), $set1_8(1)));
            let mut sums = [$zero(); SUMS];
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = $dpbusd(*sum, a, b);
                }
            }
            black_box(sums);
            (rounds * SUMS * LANES * KU) as u64
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn tile<const ROWS: usize, const CHAINS: usize, const SIGNED: bool>(
            (units, rest): &Units<'_, ROWS>,
            b: &[[u8; NR * KU]],
            start: &[i32; NR],
            acc: &mut [i32],
            acc_stride: usize,
        ) {
            let mut sums: [Sums<ROWS>; CHAINS] = [[[$zero(); NR / LANES]; ROWS]; CHAINS];
            let (start, _) = start.as_chunks();
            sums[0] = [[load(&start[0]), load(&start[1])]; ROWS];
            let steps = units[0].len().min(b.len());
            let (whole, b_rest) = b.split_at(steps);
            let (groups, b_left) = whole.as_chunks::<CHAINS>();
            for (g, b) in groups.iter().enumerate() {
                if CHAINS > 1 {
                    // Few rows wait for the right side: ask for it early. An address beyond its end does no harm.
                    for line in 0..CHAINS * NR * KU / 64 {
                        _mm_prefetch::<_MM_HINT_T0>(b.as_ptr().cast::<i8>().wrapping_add(AHEAD + line * 64));
                    }
                }
                for (c, (sums, b)) in sums.iter_mut().zip(b).enumerate() {
                    // SAFETY: `g * CHAINS + c` is below `steps`, and all rows have as many units.
                    let a = |i: usize| unsafe { *units[i].get_unchecked(g * CHAINS + c) };
                    step::<ROWS, SIGNED>(sums, a, b);
                }
            }
            for (k, b) in b_left.iter().enumerate() {
                step::<ROWS, SIGNED>(&mut sums[0], |i| units[i][groups.len() * CHAINS + k], b);
            }
            if let (Some(a), Some(b)) = (rest, b_rest.first()) {
                step::<ROWS, SIGNED>(&mut sums[0], |i| a[i], b);
            }
            for i in 0..ROWS {
                let acc: &mut [i32; NR] = acc[i * acc_stride..].first_chunk_mut().expect("a tile has NR columns");
                for (j, acc) in acc.as_chunks_mut().0.iter_mut().enumerate() {
                    let mut sum = sums[0][i][j];
                    for chain in &sums[1..] {
                        sum = $add(sum, chain[i][j]);
                    }
                    store(acc, sum);
                }
            }
        }

        /// Four codes of depth of a tile.
        #[target_feature(enable = $features)]
        #[inline]
        fn step<const ROWS: usize, const SIGNED: bool>(
            sums: &mut Sums<ROWS>,
            a: impl Fn(usize) -> [u8; KU],
            b: &[u8; NR * KU],
        ) {
            let (b, _) = b.as_chunks::<{ LANES * KU }>();
            let (b0, b1) = (load_bytes(&b[0]), load_bytes(&b[1]));
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = $set1_32(i32::from_le_bytes(a(i)));
                let a = if SIGNED { $xor(a, $set1_8(i8::MIN)) } else { a };
                sums[0] = $dpbusd(sums[0], a, b0);
                sums[1] = $dpbusd(sums[1], a, b1);
            }
        }

        /// Rows of outputs from quads: one or two at a time, so that those read each line once for both.
        #[target_feature(enable = $features)]
        #[inline]
        fn rows_of_quads(quads: Quads<'_>, weights: &[Line], start: &[i32; CHANNELS], acc: QuadSums<'_>) {
            quads.check();
            let taps = quads.offsets.len();
            let at_once = if taps == 3 { 2 } else { 1 };
            for (i, weights) in weights.chunks(at_once * taps).enumerate() {
                let (stride, row_stride) = (acc.stride, acc.row_stride);
                let acc = QuadSums { sums: &mut acc.sums[i * at_once * row_stride..], stride, row_stride };
                // SAFETY: the lines of all taps of all outputs exist.
                unsafe {
                    match (taps, weights.len()) {
                        (3, 6) => quads_of::<3, 2>(quads, weights, start, acc),
                        (3, 3) => quads_of::<3, 1>(quads, weights, start, acc),
                        (10, 10) => quads_of::<10, 1>(quads, weights, start, acc),
                        _ => quads_of_any(quads, weights, start, acc),
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
        unsafe fn quads_of<const TAPS: usize, const ROWS: usize>(
            quads: Quads<'_>,
            weights: &[Line],
            start: &[i32; CHANNELS],
            acc: QuadSums<'_>,
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
                    let codes = line(unsafe { quads.lines.get_unchecked(x * quads.step + offsets[t]) });
                    for r in 0..ROWS {
                        for i in 0..REGISTERS {
                            sums[r][i] = $dpbusd(sums[r][i], codes[i], loaded[r][t][i]);
                        }
                    }
                }
                for r in 0..ROWS {
                    store_channels(&mut acc.sums[r * acc.row_stride + x * acc.stride..], sums[r]);
                }
            }
        }

        /// One row of any number of taps, their weights from memory.
        ///
        /// # Safety
        /// - The lines of all taps of all outputs exist.
        #[target_feature(enable = $features)]
        #[inline(never)]
        unsafe fn quads_of_any(quads: Quads<'_>, weights: &[Line], start: &[i32; CHANNELS], acc: QuadSums<'_>) {
            let start = channels(start);
            for x in 0..quads.outputs {
                let mut sums = start;
                for (&offset, weights) in quads.offsets.iter().zip(weights) {
                    // SAFETY: the caller promises this line.
                    let codes = line(unsafe { quads.lines.get_unchecked(x * quads.step + offset) });
                    let weights = line(weights);
                    for i in 0..REGISTERS {
                        sums[i] = $dpbusd(sums[i], codes[i], weights[i]);
                    }
                }
                store_channels(&mut acc.sums[x * acc.stride..], sums);
            }
        }

        /// The registers of 16 channels.
        const REGISTERS: usize = CHANNELS / LANES;

        #[target_feature(enable = $features)]
        #[inline]
        fn line(from: &Line) -> [$register; REGISTERS] {
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
        fn load_bytes(from: &[u8; LANES * KU]) -> $register {
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
