//! Pages that a command writes a part of.

use anyhow::{Context, Result, ensure};

/// What ends a part.
const END: &str = "<!-- end -->";

/// `page` with what stands between the line `begin` and the next end replaced.
pub fn with_part(page: &str, begin: &str, part: &str) -> Result<String> {
    let missing = || format!("the page has no line `{begin}` with `{END}` below");
    let (before, rest) = page.split_once(begin).with_context(missing)?;
    let (old, after) = rest.split_once(END).with_context(missing)?;
    ensure!(!old.contains("\n#"), "a heading stands between `{begin}` and `{END}`");
    Ok(format!("{before}{begin}\n{part}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "<!-- written by a test -->";

    #[test]
    fn only_the_part_is_replaced() {
        let page = format!("# Blocks\n\n{BEGIN}\nold\n{END}\nand more\n<!-- other -->\n{END}\n");
        let changed = with_part(&page, BEGIN, "| new |\n").unwrap();
        assert_eq!(changed, format!("# Blocks\n\n{BEGIN}\n| new |\n{END}\nand more\n<!-- other -->\n{END}\n"));
        assert_eq!(with_part(&changed, BEGIN, "| new |\n").unwrap(), changed);
        assert!(with_part("# Blocks\n", BEGIN, "").is_err());
        assert!(with_part(&format!("{BEGIN}\n# A heading\n{END}"), BEGIN, "").is_err());
    }
}
