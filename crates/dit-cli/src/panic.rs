//! What the user sees if libtorch gives up in the middle of a computation, or if there is a bug.

use std::{panic::PanicHookInfo, sync::OnceLock};

use crate::{
    speak::say,
    torch_text::{is_want_of_memory, without_call_stack},
};

/// Replaces the panic message and backtrace by one line that says what to do. A training run warns of those that it survives, and so does whoever records a CUDA graph.
pub fn install() {
    std::panic::set_hook(Box::new(|info| {
        if !dit_train::panics_are_survived() && !dit_torch::is_recording() {
            say(format_args!("error: {}", describe(&message(info))));
        }
    }));
}

/// What helps against too little memory, in place of what most commands say.
static MEMORY_HELP: OnceLock<&str> = OnceLock::new();

/// Has `help` said if memory runs out: what this command takes.
pub fn help_for_memory(help: &'static str) {
    MEMORY_HELP.get_or_init(|| help);
}

/// What helps this command if memory runs out.
pub fn memory_help() -> &'static str {
    MEMORY_HELP.get().unwrap_or(&"pass a smaller --batch-size, or --precision bf16")
}

fn message(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied());
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    format!("{} ({place})", text.unwrap_or("unknown"))
}

fn describe(message: &str) -> String {
    let first = without_call_stack(message).lines().next().unwrap_or_default();
    if is_want_of_memory(message) {
        let said = if message.contains("memory") { String::new() } else { format!(", it seems: {first}") };
        return format!("out of memory{said}\n  help: {}", memory_help());
    }
    format!("internal error: {first}\n  help: this is a bug; please report it with the command that you ran")
}

#[cfg(test)]
mod tests {
    use super::describe;

    #[test]
    fn memory_is_told_from_bugs_and_call_stacks_are_cut() {
        assert!(describe("CUDA out of memory. Tried to allocate 20.00 GiB\nframe #0").contains("--batch-size"));
        assert!(describe("DefaultCPUAllocator: can't allocate memory: you tried to allocate").contains("--batch-size"));
        let perhaps = describe("GET was unable to find an engine to execute this computation\nframe #0");
        assert!(perhaps.contains("it seems: GET was unable") && perhaps.contains("--batch-size"), "{perhaps}");
        let bug = describe("shape mismatch\nframe #0: c10::Error");
        assert!(bug.contains("shape mismatch") && !bug.contains("frame"));
    }
}
