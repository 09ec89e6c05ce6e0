//! Signals as Docker writes them: the number in events, a number or a name in a container's configuration.

use std::str::FromStr;

use nix::sys::signal::Signal;

/// What `docker stop` sends unless the image or the container says otherwise.
pub const TERMINATE: i32 = libc::SIGTERM;

/// The number of `15`, `SIGTERM`, `TERM`, `RTMIN+3` or `SIGRTMAX-1`.
pub fn number(text: &str) -> Option<i32> {
    let name = text.trim().to_ascii_uppercase();
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let bare = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest.parse::<i32>().ok() };
    if let Some(rest) = bare.strip_prefix("RTMIN") {
        return Some(libc::SIGRTMIN() + offset(rest)?);
    }
    if let Some(rest) = bare.strip_prefix("RTMAX") {
        return Some(libc::SIGRTMAX() + offset(rest)?);
    }
    Signal::from_str(&format!("SIG{bare}")).ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_one_number_however_they_are_written() {
        let table = [
            ("15", Some(15)),
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("SIGQUIT", Some(3)),
            ("SIGWINCH", Some(28)),
            ("RTMIN+3", Some(37)),
            ("SIGRTMIN", Some(34)),
            ("SIGRTMAX-1", Some(63)),
            ("SIGNOTHING", None),
            ("", None),
        ];
        for (text, wanted) in table {
            assert_eq!(number(text), wanted, "{text}");
        }
    }
}
