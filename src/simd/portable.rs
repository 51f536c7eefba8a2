use super::operands::subtract_compensation;
use super::{Kernel, LhsRows, RhsPanels, Task};

/// Plain Rust, for every target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

impl Kernel for Portable {
    const MR: usize = 4;
    const NR: usize = 8;
    const NR_PANELS: usize = 1;
    const KR: usize = 2;

    #[inline(always)]
    fn multiply(self, rows: usize, a: LhsRows<'_>, b: RhsPanels<'_>, acc: &mut [i32], acc_stride: usize) {
        let sign_xor = if a.signed { 0x80 } else { 0 };
        let start: &[i32; Self::NR] = b.start.first_chunk().expect("a panel has NR columns");
        let (panel, _) = b.panels.as_chunks::<{ Self::NR * Self::KR }>();
        for i in 0..rows {
            let mut row = *start;
            if !b.zero_points.is_empty() {
                subtract_compensation(&mut row, b.zero_points, a.sums[i]);
            }
            let (units, rest) = a.row(i).as_chunks::<{ Self::KR }>();
            let last = rest.first().map(|&code| [code, 0]);
            for (a, b) in units.iter().chain(&last).zip(panel) {
                let (a0, a1) = ((a[0] ^ sign_xor) as i32, (a[1] ^ sign_xor) as i32);
                for (j, acc) in row.iter_mut().enumerate() {
                    let (b0, b1) = (b[2 * j] as i8 as i32, b[2 * j + 1] as i8 as i32);
                    // Two products of a u8 and an i8 cannot overflow an i32; the accumulator may wrap.
                    *acc = acc.wrapping_add(a0 * b0 + a1 * b1);
                }
            }
            acc[i * acc_stride..][..Self::NR].copy_from_slice(&row);
        }
    }

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        task.run()
    }
}
