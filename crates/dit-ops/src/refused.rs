/// Whether the environment asks to do without something: `DIT_NO_AMX`, say, is there, not empty and not 0.
pub fn refused(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty() && value != "0")
}
