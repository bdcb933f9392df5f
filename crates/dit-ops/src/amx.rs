//! AMX: eight registers of sixteen rows of 64 bytes, and an instruction that multiplies two of them.

use std::{arch::asm, mem::MaybeUninit};

mod products;

pub(crate) use products::{BLOCK_LANES, BLOCK_ROWS, Rows, bf16, int8, square_bf16};

/// Rows of a register, and words of each.
pub(crate) const ROWS: usize = 16;

/// Asks the system for the registers, which it hands out to processes that ask; whether they are there.
#[cfg(target_os = "linux")]
pub(crate) fn request() -> bool {
    /// Of the registers' contents in a process' state (Linux, `Documentation/arch/x86/xstate.rst`).
    const TILE_DATA: libc::c_long = 18;
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    // SAFETY: the call only changes what of this process' registers is saved; it fails where it knows none of that.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn request() -> bool {
    false
}

/// What `ldtilecfg` reads: palette 1 has eight registers of up to sixteen rows of up to 64 bytes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Configuration {
    /// Registers of the left factor and of results have `rows` rows, the right factor's all sixteen.
    fn of_rows(rows: usize) -> Self {
        let mut configuration = Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        configuration.row_bytes[..8].fill(64);
        configuration.rows[..7].fill(rows.min(ROWS) as u8);
        configuration.rows[7] = ROWS as u8;
        configuration
    }
}

/// This thread's registers, shaped for our kernels. With the end of its life they have the shape again that they had, so that whoever
/// shaped them, oneDNN say, need not look.
pub(crate) struct Tiles {
    before: Configuration,
}

impl Tiles {
    /// Registers for `rows` rows, at most sixteen, of the left factor.
    ///
    /// # Safety
    /// The CPU has AMX, and [`request`] was granted.
    pub(crate) unsafe fn of_rows(rows: usize) -> Self {
        let mut before = MaybeUninit::<Configuration>::uninit();
        // SAFETY: the instruction writes all 64 bytes; any are a configuration.
        let before = unsafe {
            asm!("sttilecfg [{}]", in(reg) before.as_mut_ptr(), options(nostack, preserves_flags));
            before.assume_init()
        };
        let mut tiles = Self { before };
        tiles.set_rows(rows);
        tiles
    }

    /// The same registers for another number of rows. Their contents are lost.
    pub(crate) fn set_rows(&mut self, rows: usize) {
        // SAFETY: there are registers, or `self` would not be.
        unsafe { load(&Configuration::of_rows(rows)) }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: as in `set_rows`. A configuration of palette 0 gives the registers back.
        unsafe { load(&self.before) }
    }
}

/// # Safety
/// The CPU has AMX, and [`request`] was granted.
unsafe fn load(configuration: &Configuration) {
    // SAFETY: 64 bytes are read, of a configuration that is valid.
    unsafe { asm!("ldtilecfg [{}]", in(reg) configuration, options(nostack, readonly, preserves_flags)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;

    fn configuration() -> [u8; 64] {
        let mut bytes = [0; 64];
        // SAFETY: the CPU has AMX, as its callers see to; 64 bytes are written.
        unsafe { asm!("sttilecfg [{}]", in(reg) &mut bytes, options(nostack, preserves_flags)) };
        bytes
    }

    #[test]
    fn registers_come_back_as_they_were() {
        if !Cpu::detect().amx {
            eprintln!("SKIPPED: no AMX");
            return;
        }
        let unused = configuration();
        // SAFETY: the CPU has AMX.
        let outer = unsafe { Tiles::of_rows(7) };
        let own = configuration();
        assert_ne!(own, unused);
        // SAFETY: as above.
        drop(unsafe { Tiles::of_rows(16) });
        assert_eq!(configuration(), own);
        drop(outer);
        assert_eq!(configuration(), unused);
    }
}
