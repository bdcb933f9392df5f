/// More than any data set has shards.
const MOST: usize = 1 << 20;

/// The names that a pattern stands for, as a shell expands `{000..146}` and `{a,b}`; the pattern itself if it has no braces. Nothing
/// for a pattern that is not understood or stands for too many.
pub(super) fn expand(pattern: &str) -> Option<Vec<String>> {
    let Some(open) = pattern.find('{') else { return Some(vec![pattern.to_owned()]) };
    let close = open + pattern[open..].find('}')?;
    let (before, inside, after) = (&pattern[..open], &pattern[open + 1..close], &pattern[close + 1..]);
    let choices = choices(inside)?;
    let rest = expand(after)?;
    if choices.len().saturating_mul(rest.len()) > MOST {
        return None;
    }
    let join = |choice: &String| rest.iter().map(|rest| format!("{before}{choice}{rest}")).collect::<Vec<_>>();
    Some(choices.iter().flat_map(join).collect())
}

fn choices(inside: &str) -> Option<Vec<String>> {
    let Some((first, last)) = inside.split_once("..") else {
        return Some(inside.split(',').map(str::to_owned).collect());
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return None;
    }
    let padded = first.starts_with('0') || last.starts_with('0');
    let width = if padded { first.len().max(last.len()) } else { 0 };
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    if last.checked_sub(first)? >= MOST as u64 {
        return None;
    }
    Some((first..=last).map(|number| format!("{number:0width$}")).collect())
}
