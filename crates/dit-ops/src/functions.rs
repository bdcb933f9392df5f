//! Declarations of functions over registers, for one set of instructions.

/// Declares functions of registers alone, with these features.
macro_rules! functions {
    ($features:literal; $($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty $body:block)+) => {
        $(
            $(#[$doc])*
            #[target_feature(enable = $features)]
            #[inline]
            pub(crate) fn $name($($argument: $type),*) -> $result $body
        )+
    };
}
pub(crate) use functions;

/// Declares functions that read or write where a pointer says.
macro_rules! accesses {
    (
        $features:literal;
        $($(#[$doc:meta])* unsafe fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? $body:block)+
    ) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            /// What it reads or writes can be.
            #[target_feature(enable = $features)]
            #[inline]
            pub(crate) unsafe fn $name($($argument: $type),*) $(-> $result)? {
                // SAFETY: the caller's promise.
                unsafe { $body }
            }
        )+
    };
}
pub(crate) use accesses;
