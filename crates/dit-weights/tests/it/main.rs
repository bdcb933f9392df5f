//! The crate against files: one test binary, one module a subject.

mod checkpoint;
mod common;
mod convert;
mod infer;
mod safetensors;
#[cfg(feature = "tch")]
mod tch_load;
