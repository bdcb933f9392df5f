//! One function, compiled for the machine's best instructions and for every other machine.

/// Compiles a function twice, once for x86-64 with AVX2, and picks when it is called. The arithmetic is integer: both give
/// the same bytes.
macro_rules! vectorised {
    (
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident $(<$lifetime:lifetime>)? ($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block
    ) => {
        $(#[$attribute])*
        $visibility fn $name $(<$lifetime>)? ($($argument: $type),*) $(-> $result)? {
            #[inline(always)]
            fn portable $(<$lifetime>)? ($($argument: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
                fn avx2 $(<$lifetime>)? ($($argument: $type),*) $(-> $result)? {
                    portable($($argument),*)
                }
                if $crate::simd::has_avx2() {
                    // SAFETY: the processor has every feature that `avx2` is compiled for.
                    return unsafe { avx2($($argument),*) };
                }
            }
            portable($($argument),*)
        }
    };
}
pub(crate) use vectorised;

/// Whether the processor has what [`vectorised!`] compiles for.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}
