//! The demo's output: lines that stay, and below them, on a terminal, a part that is drawn again and again.

use std::io::{self, Write};
use std::time::Instant;

/// Where lines go. Without a terminal the drawn part is printed when asked for, once a step.
#[derive(Debug)]
pub struct Screen<W: Write> {
    out: W,
    live: bool,
    drawn: usize,
    start: Instant,
}

impl<W: Write> Screen<W> {
    /// An empty screen; `live` says that `out` is a terminal.
    pub fn new(out: W, live: bool) -> Self {
        Self { out, live, drawn: 0, start: Instant::now() }
    }

    /// A line that stays, with the time since the demo's start.
    pub fn step(&mut self, text: &str) -> io::Result<()> {
        let at = self.start.elapsed().as_secs_f64();
        self.line(&format!("{at:6.1} s  {text}"))
    }

    /// A line that stays, below the step that it belongs to.
    pub fn detail(&mut self, text: &str) -> io::Result<()> {
        self.line(&format!("          {text}"))
    }

    /// A line that stays.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        self.clear()?;
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Draws the lower part in place of what it was; nothing without a terminal.
    pub fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        if !self.live {
            return Ok(());
        }
        let mut text = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
        for line in lines {
            text.push_str(line);
            // Whatever was longer there goes.
            text.push_str("\x1b[K\n");
        }
        text.push_str("\x1b[J");
        self.drawn = lines.len();
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Lets the lower part stay as it is now; without a terminal, prints it.
    pub fn keep(&mut self, lines: &[String]) -> io::Result<()> {
        self.clear()?;
        for line in lines {
            writeln!(self.out, "{line}")?;
        }
        self.out.flush()
    }

    fn clear(&mut self) -> io::Result<()> {
        if self.drawn > 0 {
            write!(self.out, "\x1b[{}A\x1b[J", self.drawn)?;
            self.drawn = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(live: bool) -> String {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, live);
        screen.draw(&["one".to_owned(), "two".to_owned()]).unwrap();
        screen.draw(&["three".to_owned()]).unwrap();
        screen.line("stays").unwrap();
        screen.keep(&["kept".to_owned()]).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_terminal_is_drawn_over_and_a_file_gets_only_what_stays() {
        assert_eq!(written(false), "stays\nkept\n");
        assert_eq!(
            written(true),
            "one\x1b[K\ntwo\x1b[K\n\x1b[J\x1b[2Athree\x1b[K\n\x1b[J\x1b[1A\x1b[Jstays\nkept\n"
        );
    }
}
