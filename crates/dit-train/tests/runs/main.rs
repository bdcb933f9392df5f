//! Whole runs on small latents: what is continued, what the recipe's options do, what goes wrong and what becomes of it.

mod going_on;
mod guarded;
mod kept;
mod measured;
mod options;
mod refused;
mod support;
