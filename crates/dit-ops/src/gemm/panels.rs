//! A few panels of a product, with AMX one.

use std::cell::RefCell;

use super::{COPIED_ROWS, COPIED_ROWS_AT_ONCE, Epilogue, Kernel, Left, Output, Panels, Place, WIDENED_ROWS, WIDTH};
use crate::{aligned::Aligned, blocks};

/// Registers of a panel's row.
const LANES: usize = WIDTH / 16;

const _: () = assert!(COPIED_ROWS.is_multiple_of(blocks::ROWS) && COPIED_ROWS_AT_ONCE.is_multiple_of(COPIED_ROWS));
const _: () = assert!(COPIED_ROWS_AT_ONCE.is_multiple_of(WIDENED_ROWS));

/// The panels of `place` for its rows.
///
/// # Safety
/// The CPU has the instructions of `kernel`, which is one of `right.kind`; the sizes fit as [`multiply`](super::multiply) asserts; `place` lies
/// within them; nobody else touches its results.
pub(super) unsafe fn multiply(
    kernel: Kernel,
    left: Left<'_>,
    right: Panels<'_>,
    epilogue: Epilogue<'_>,
    output: Output,
    place: Place,
) {
    // In bf16 the columns of an odd number of panels are no whole lines.
    let whole_lines = place.panels.is_multiple_of(2) || matches!(output, Output::F32(_));
    let epilogue = Epilogue { past_caches: epilogue.past_caches && whole_lines, ..epilogue };
    #[cfg(target_arch = "aarch64")]
    use arm as kernels;
    #[cfg(target_arch = "x86_64")]
    use x86 as kernels;
    // SAFETY: the caller's promises, handed on.
    unsafe { kernels::of(kernel)(left, right, epilogue, output, place) };
    #[cfg(target_arch = "x86_64")]
    if epilogue.past_caches {
        // Others may read the results once this thread says that it is done.
        // SAFETY: every CPU of this architecture has the instruction.
        unsafe { std::arch::x86_64::_mm_sfence() };
    }
}

/// The same with one kind of instructions.
type Multiply = unsafe fn(Left<'_>, Panels<'_>, Epilogue<'_>, Output, Place);

thread_local! {
    /// What a thread keeps sums in.
    static SUMS: RefCell<Aligned<u32>> = RefCell::default();
}

/// By `products`, which has the form of [`blocks`](crate::blocks)' `multiply`, and lowers the left factor's codes by `lowered`.
macro_rules! multiply_copied {
    ($name:ident, $set:ident, $features:literal, $($products:ident)::+, $lowered:literal) => {
        /// # Safety
        /// As [`multiply`](super::multiply).
        #[target_feature(enable = $features)]
        unsafe fn $name(left: Left<'_>, right: Panels<'_>, epilogue: Epilogue<'_>, output: Output, place: Place) {
            let (depth, stride) = (right.depth, left.stride);
            let (first, rows) = (place.first, place.end - place.first);
            assert!(rows <= COPIED_ROWS_AT_ONCE, "the sums have no room for so many");
            let rows_start = left.words[first * stride..].as_ptr();
            let lines = right.lines[place.panel * depth * LANES..][..place.panels * depth * LANES].as_ptr();
            let width = place.panels * WIDTH;
            super::SUMS.with_borrow_mut(|sums| {
                let sums = sums.at_least(COPIED_ROWS_AT_ONCE * width);
                let start = sums.as_mut_ptr();
                // SAFETY: each row has `depth` words, each panel `depth` times `LANES` lines, `sums` a row for each by each panel, and for
                // the rows up to the next multiple of a block's, as asserted above.
                unsafe {
                    $($products)::+::<LANES>(rows_start, stride, rows, (lines, place.panels), depth, start, (WIDTH, width))
                };
                let column = place.panel * WIDTH;
                let sums = Sums { words: sums, stride: width, rows, first, column, width, lowered: $lowered };
                // SAFETY: results are this task's own, and lie within the output's rows.
                unsafe { super::super::epilogue::$set::finish(sums, right.columns, &epilogue, output) };
            });
        }
    };
}

#[cfg(target_arch = "aarch64")]
mod arm;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{mem::MaybeUninit, ptr};

    use tch::Kind;

    use super::{LANES, WIDTH};
    use crate::{
        cpu::Cpu,
        element::{Bf16, Element},
        gemm::{Activation, Dequantize, Epilogue, Left, Line, Output, Panels, RowScale, Words, multiply},
        parallel::Destination,
    };

    /// Memory whose last word is followed by a page that cannot be read.
    struct Guarded {
        start: *mut u8,
        len: usize,
    }

    const PAGE: usize = 1 << 16; // a multiple of every system's

    impl Guarded {
        fn new(bytes: usize) -> Self {
            let len = bytes.next_multiple_of(PAGE) + PAGE;
            // SAFETY: fresh memory of our own, whose last page is closed.
            let start = unsafe {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let start = libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
                assert_ne!(start, libc::MAP_FAILED);
                assert_eq!(libc::mprotect(start.byte_add(len - PAGE), PAGE, libc::PROT_NONE), 0);
                start.cast()
            };
            Self { start, len }
        }

        fn words(&self, count: usize) -> &[u32] {
            // SAFETY: the words before the closed page, of zeros.
            unsafe { std::slice::from_raw_parts(self.start.add(self.len - PAGE - 4 * count).cast(), count) }
        }
    }

    impl Drop for Guarded {
        fn drop(&mut self) {
            // SAFETY: mapped by `new`.
            unsafe { libc::munmap(self.start.cast(), self.len) };
        }
    }

    #[test]
    fn nothing_after_the_last_row_is_read() {
        for kind in [Words::F32, Words::Bf16, Words::Int8] {
            if !kind.supported(Cpu::detect()) {
                eprintln!("SKIPPED: no kernel for {kind:?}");
                continue;
            }
            for (rows, depth) in [
                (1, 16),
                (2, 9),
                (5, 16),
                (17, 23),
                (33, 32),
                (50, 7),
                (49, 300),
                (12, 1),
                (24, 7),
                (48, 129),
                (36, 300),
            ] {
                let memory = Guarded::new(4 * rows * depth);
                let left = Left { words: memory.words(rows * depth), rows, stride: depth };
                let lines = vec![Line([0x0101_0101; 16]); Panels::lines_of(50, depth)];
                let right = Panels { kind, lines: &lines, columns: 50, depth };
                let (scales, steps) = (vec![RowScale { step: 1.0, zero: 0 }; rows], vec![1.0; 96]);
                let totals = vec![4 * depth as i32; 96]; // of bytes that are 1
                let dequantize = Dequantize { rows: &scales, columns: &steps, sums: &totals };
                let dequantize = (kind == Words::Int8).then_some(dequantize);
                let epilogue = Epilogue { dequantize, ..Epilogue::plain() };
                let mut results = vec![MaybeUninit::new(1.0_f32); rows * 50];
                multiply(left, right, epilogue, Output::F32(Destination::new(results.as_mut_ptr())));
                // SAFETY: all were set.
                assert!(results.iter().all(|result| unsafe { result.assume_init() } == 0.0), "{kind:?} {rows} {depth}");
            }
        }
    }

    /// Rows that lie further apart than they are long, as those of a transposed factor do; results past the caches, and before the activation.
    #[test]
    fn rows_may_lie_apart_and_results_be_kept_twice() {
        for kind in [Words::F32, Words::Bf16] {
            if !kind.supported(Cpu::detect()) {
                eprintln!("SKIPPED: no kernel for {kind:?}");
                continue;
            }
            for (rows, columns) in [(5, 48), (40, 50), (97, 96), (9, 144), (17, 224), (5, 400), (90, 400)] {
                // From a line's start on, and from between two.
                for offset in [0, 3] {
                    check_kept_twice::<f32>(kind, rows, columns, offset, Output::F32);
                    check_kept_twice::<Bf16>(kind, rows, columns, offset, Output::Bf16);
                }
            }
        }
    }

    fn check_kept_twice<E: Element>(
        kind: Words,
        rows: usize,
        columns: usize,
        offset: usize,
        output: fn(Destination<MaybeUninit<E>>) -> Output,
    ) {
        let (depth, stride) = (37, 64);
        // A row's number in its activations, that of sixteen columns in their weights; in bf16 twice.
        let word = |value: f32| match kind {
            Words::F32 => value.to_bits(),
            _ => value.to_bits() >> 16 | value.to_bits() & 0xffff_0000,
        };
        let (of_row, of_column) = (|row: usize| (row % 8) as f32, |column: usize| (1 + column / 16 % 7) as f32);
        let place = |at: usize| if at % stride < depth { word(of_row(at / stride)) } else { u32::MAX };
        let left: Vec<u32> = (0..rows * stride).map(place).collect();
        let line = |at: usize| Line([word(of_column(at / (depth * LANES) * WIDTH + at % LANES * 16)); 16]);
        let lines: Vec<Line> = (0..Panels::lines_of(columns, depth)).map(line).collect();
        let right = Panels { kind, lines: &lines, columns, depth };
        let bias = vec![0.5; columns.next_multiple_of(WIDTH)];
        let bytes = (rows * columns + offset) * size_of::<E>();
        let mut memory = [(); 2].map(|()| vec![Line([u32::MAX; 16]); bytes.div_ceil(64)]);
        let [after, before] = memory
            .each_mut()
            .map(|lines| output(Destination::new(lines.as_mut_ptr().cast::<MaybeUninit<E>>().wrapping_add(offset))));
        let epilogue = Epilogue {
            bias: &bias,
            activation: Activation::GeluTanh,
            before: Some(before),
            past_caches: true,
            ..Epilogue::plain()
        };
        multiply(Left { words: &left, rows, stride }, right, epilogue, after);
        // SAFETY: the memory is so many elements long, and any bits are one.
        let [after, before] = memory
            .each_ref()
            .map(|lines| unsafe { std::slice::from_raw_parts(lines.as_ptr().cast::<E>(), bytes / size_of::<E>()) });
        for at in 0..rows * columns {
            let (row, column) = (at / columns, at % columns);
            let expected = (kind.elements() * depth) as f32 * of_row(row) * of_column(column) + 0.5;
            let gelu = if expected > 10.0 { expected } else { 0.345_714 };
            let found = [before, after].map(|all| all[offset + at].to_f32());
            let name = format!("{kind:?} to {:?}, {rows} × {columns} + {offset}: {row}, {column}", E::KIND);
            assert_eq!(found[0], E::from_f32(expected).to_f32(), "{name}");
            let close = if E::KIND == Kind::Float { 1e-5 } else { gelu / 256.0 };
            assert!((found[1] - gelu).abs() < close, "{name}: {} for {gelu}", found[1]);
        }
    }

    /// Sums of the largest codes: exact, and nothing saturates on the way.
    #[test]
    fn int8_sums_are_exact() {
        if !Words::Int8.supported(Cpu::detect()) {
            eprintln!("SKIPPED: no kernel for int8");
            return;
        }
        // The last has several panels for each task.
        for (rows, depth, columns) in
            [(1, 1, 50), (3, 255, 50), (6, 256, 50), (13, 257, 50), (40, 513, 50), (70, 20, 400)]
        {
            // Each column has weights of one sign, or alternating ones; twos of as much as their sums may be.
            let twos = Words::twos_saturate(Cpu::detect());
            let weight = |column: usize, place: usize| match (column % 3, twos) {
                (0, false) => 127_i8,
                (1, false) => -127,
                (_, false) => [127, -127, 126, -3][place % 4],
                (0, true) => [127, 1, 64, 64][place % 4],
                (1, true) => [-1, -127, -64, -64][place % 4],
                (_, true) => [127, -1, -63, 65][place % 4],
            };
            let code =
                |row: usize, place: usize| if row.is_multiple_of(2) { 255 } else { [255_u8, 0, 254, 1][place % 4] };
            let left: Vec<u32> = (0..rows * depth)
                .map(|at| u32::from_le_bytes(std::array::from_fn(|i| code(at / depth, 4 * (at % depth) + i))))
                .collect();
            let mut lines = vec![Line([0; 16]); Panels::lines_of(columns, depth)];
            for column in 0..columns {
                for word in 0..depth {
                    let line = &mut lines[(column / WIDTH * depth + word) * LANES + column % WIDTH / 16];
                    line.0[column % 16] =
                        u32::from_le_bytes(std::array::from_fn(|i| weight(column, 4 * word + i).cast_unsigned()));
                }
            }
            let whole = columns.next_multiple_of(WIDTH);
            // Steps are powers of two, which scale without rounding.
            let scales: Vec<RowScale> = (0..rows).map(|row| RowScale { step: 0.5, zero: row as i32 % 3 }).collect();
            let step = |column: usize| [1.0, 4.0, 0.25][column / 16 % 3];
            let steps: Vec<f32> = (0..whole).map(step).collect();
            let total = |column: usize| (0..4 * depth).map(|place| i32::from(weight(column, place))).sum::<i32>();
            let totals: Vec<i32> = (0..whole).map(|column| if column < columns { total(column) } else { 0 }).collect();
            let dequantize = Some(Dequantize { rows: &scales, columns: &steps, sums: &totals });
            let epilogue = Epilogue { dequantize, ..Epilogue::plain() };
            let mut results = vec![MaybeUninit::new(f32::NAN); rows * columns];
            let left = Left { words: &left, rows, stride: depth };
            let right = Panels { kind: Words::Int8, lines: &lines, columns, depth };
            multiply(left, right, epilogue, Output::F32(Destination::new(results.as_mut_ptr())));
            for (at, found) in results.iter().enumerate() {
                let (row, column) = (at / columns, at % columns);
                let expected: i32 =
                    (0..4 * depth).map(|place| i32::from(code(row, place)) * i32::from(weight(column, place))).sum();
                let expected = expected - row as i32 % 3 * totals[column];
                let expected = expected as f32 * 0.5 * step(column);
                // SAFETY: all were set.
                assert_eq!(unsafe { found.assume_init() }, expected, "{rows} {depth}: {row}, {column}");
            }
        }
    }
}
